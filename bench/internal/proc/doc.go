// Package proc starts the processes of a benchmark on chosen CPUs, reads what they cost from the kernel's own books and ends them. In: a
// command line and CPU numbers. Out: CPU time and memory of a process and its descendants. It must not know what the processes do.
package proc
