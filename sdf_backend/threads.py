"""How torch's threads wait for each other; must be set before torch is loaded."""

# By default OpenMP's threads spin while they wait, and so keep the cores from the thread that should finish first. Next
# to a program that uses all cores, such as a rendering Blender, a fit then takes many times as long. Threads that sleep
# at once cost a fifth on an idle machine, most of which some microseconds of spinning first save: GNU's OpenMP, torch's
# on Linux, takes a spin count and then ignores the policy.
PATIENT_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}
