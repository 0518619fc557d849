package proc

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"
)

// cpuSet is the kernel's cpu_set_t: one bit a CPU.
type cpuSet [1024 / 64]uint64

func setOf(cpus []int) cpuSet {
	var s cpuSet
	for _, c := range cpus {
		s[c/64%len(s)] |= 1 << (c % 64)
	}
	return s
}

// affinity reads a thread's set of CPUs; 0 is the calling thread.
func affinity(tid int) (cpuSet, error) {
	var s cpuSet
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, uintptr(tid), unsafe.Sizeof(s), uintptr(unsafe.Pointer(&s)))
	if errno != 0 {
		return s, fmt.Errorf("sched_getaffinity: %w", errno)
	}
	return s, nil
}

func setAffinity(tid int, s cpuSet) error {
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, uintptr(tid), unsafe.Sizeof(s), uintptr(unsafe.Pointer(&s)))
	if errno != 0 {
		return fmt.Errorf("sched_setaffinity: %w", errno)
	}
	return nil
}

// CPUs returns the numbers of the CPUs that this process may use.
func CPUs() ([]int, error) {
	s, err := affinity(0)
	if err != nil {
		return nil, err
	}
	var list []int
	for c := range len(s) * 64 {
		if s[c/64]&(1<<(c%64)) != 0 {
			list = append(list, c)
		}
	}
	return list, nil
}

// Pin binds every thread of this process to cpus, and so all that it starts later.
func Pin(cpus []int) error {
	set := setOf(cpus)
	// New threads inherit from the thread that starts them; the second pass catches those that a not yet bound one started in the first.
	for range 2 {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, t := range threads {
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				return err
			}
			if err := setAffinity(tid, set); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
	}
	return nil
}

// startOn runs start, which forks, on a thread that is bound to cpus: the child inherits the binding before its first instruction, so
// that a runtime which counts CPUs when it starts counts these.
func startOn(cpus []int, start func() error) error {
	if len(cpus) == 0 {
		return start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := affinity(0)
	if err != nil {
		return err
	}
	if err := setAffinity(0, setOf(cpus)); err != nil {
		return err
	}
	err = start()
	if back := setAffinity(0, before); back != nil && err == nil {
		return back
	}
	return err
}

// childAttributes gives a child its own process group, and SIGTERM when the thread that started it dies, which is when this process does.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// RaiseFileLimit lets this process and its children open want files, or as many as the system allows, and returns how many.
func RaiseFileLimit(want uint64) (uint64, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	if limit.Max < want {
		// Only a privileged process may do this.
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: want, Max: want}) == nil {
			return want, nil
		}
	}
	// Said explicitly even where the runtime has raised it already: only an explicit limit passes on to children.
	limit.Cur = min(want, limit.Max)
	return limit.Cur, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}
