package load

import (
	"syscall"
	"time"
)

// pause sleeps in the kernel, which wakes up within some 60 us. A timer of Go's runtime may be a whole millisecond late when nothing else
// happens, because its poller waits in milliseconds.
func pause(d time.Duration) {
	at := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&at, nil) // being woken early makes a request at most early by what is left
}
