"""What both servers do with their machine and with Triton's processes: the embedded one and the container.

Only Python's standard library is used, because the container's image has no more. It gets this package beside its own.

processes        the processes of a Triton; in_flight (waits for their requests)
decode_step      its limits where no config states them, and the shared memory that it needs
cores            how many there are; gpu_devices (how many decode); device_fit (networks for another device)
"""
