package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Usage is what a process and its descendants have used so far.
type Usage struct {
	// CPU is user and system time of all threads, of the living descendants, and of those that ended and were waited for.
	CPU time.Duration
	// RSS is the resident memory in bytes. Pages that several processes share count once for each.
	RSS int64
	// Processes counts the living ones.
	Processes int
}

// tick is the unit of CPU time in /proc: the kernel shows user space 1/100 s on every architecture that Go runs on, whatever its own
// clock does. The sums below it are exact; only what is shown is rounded down.
const tick = time.Second / 100

// stat is what we read of /proc/PID/stat.
type stat struct {
	pid, parent int
	// own and reaped are CPU time of the process itself and of its children that ended and were waited for.
	own, reaped time.Duration
	pages       int64
}

// parseStat reads one line of /proc/PID/stat (proc_pid_stat(5)):
//
//	pid (comm) state ppid ... utime stime cutime cstime ... rss ...
//
// with ppid as field 4, the four times as fields 14 to 17 and rss, in pages, as field 24. The name in parentheses may hold blanks and
// parentheses itself, so the fields are counted from the last closing one.
func parseStat(line []byte) (stat, error) {
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 1 || end < open {
		return stat{}, fmt.Errorf("process state %q has no name in parentheses", line)
	}
	var s stat
	var err error
	if s.pid, err = strconv.Atoi(string(bytes.TrimSpace(line[:open]))); err != nil {
		return stat{}, fmt.Errorf("process state %q begins with no number: %w", line, err)
	}
	fields := bytes.Fields(line[end+1:]) // fields[0] is field 3
	number := func(field int) int64 {
		if field-3 >= len(fields) {
			err = errors.Join(err, fmt.Errorf("process state %q has no field %d", line, field))
			return 0
		}
		n, bad := strconv.ParseInt(string(fields[field-3]), 10, 64)
		err = errors.Join(err, bad)
		return n
	}
	s.parent = int(number(4))
	s.own = time.Duration(number(14)+number(15)) * tick
	s.reaped = time.Duration(number(16)+number(17)) * tick
	s.pages = number(24)
	return s, err
}

// UsageOf adds up the process pid and its descendants. It fails if pid is gone.
func UsageOf(pid int) (Usage, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return Usage{}, err
	}
	var all []stat
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // ended meanwhile
		}
		s, err := parseStat(line)
		if err != nil {
			return Usage{}, err
		}
		all = append(all, s)
	}
	u := tree(all, pid)
	if u.Processes == 0 {
		return u, fmt.Errorf("process %d is gone", pid)
	}
	return u, nil
}

// tree adds up the process root and everything below it.
//
// A child that ended hands its time, and that of its own dead children, to the parent that waits for it. So each living process' own time
// plus what it reaped counts everything exactly once.
func tree(all []stat, root int) Usage {
	children := map[int][]stat{}
	var u Usage
	var next []stat
	for _, s := range all {
		children[s.parent] = append(children[s.parent], s)
		if s.pid == root {
			next = append(next, s)
		}
	}
	for len(next) > 0 {
		s := next[0]
		next = append(next[1:], children[s.pid]...)
		u.CPU += s.own + s.reaped
		u.RSS += s.pages * int64(os.Getpagesize())
		u.Processes++
	}
	return u
}

// Busy is the CPU time that the whole machine has spent at work since it started, all CPUs together.
func Busy() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseBusy(text)
}

// parseBusy reads the first line of /proc/stat (proc_stat(5)):
//
//	cpu user nice system idle iowait irq softirq steal guest guest_nice
//
// Guests are counted in user and nice already.
func parseBusy(text []byte) (time.Duration, error) {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	fields := bytes.Fields(line)
	if len(fields) < 9 || string(fields[0]) != "cpu" {
		return 0, fmt.Errorf("the machine's CPU times %q are not understood", line)
	}
	var ticks int64
	for i, field := range fields[1:9] {
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("the machine's CPU times: %w", err)
		}
		if i != 3 && i != 4 { // idle, iowait
			ticks += n
		}
	}
	return time.Duration(ticks) * tick, nil
}
