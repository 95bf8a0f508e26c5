"""How torch's threads wait for each other; to be settled before torch is loaded."""

# By themselves OpenMP's threads spin while they wait, and so keep the cores from whoever should finish first. Beside a
# program that uses all cores, a Blender that renders for one, a fit then takes many times as long; put to sleep they
# cost a tenth where nobody else is there.
PATIENT_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}
