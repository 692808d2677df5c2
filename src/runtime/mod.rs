//! Joins core, store and net into one process: the driver, the writer thread, timers, restarts, supervision.
