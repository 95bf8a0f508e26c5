"""How torch's threads wait for each other; to be settled before torch is loaded."""

# By themselves OpenMP's threads spin while they wait, and so keep the cores from whoever should finish first. Beside a
# program that uses all cores, a Blender that renders for one, a fit then takes many times as long. Put to sleep at once
# they cost a fifth where nobody else is there, which some microseconds of spinning first save: GNU's OpenMP, torch's on
# Linux, takes a count of these and then leaves the policy aside.
PATIENT_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}
