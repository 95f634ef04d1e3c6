"""What a run keeps on the disk as it goes: the database and its writer, room put aside, the lock, and pages that
outlive a process that is killed."""
