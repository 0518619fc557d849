package sock

import (
	"os"
	"sync"
	"syscall"
)

// Watcher waits for peers to hang up. It has an epoll set of its own, because Go's poller tells only who reads; the set's descriptor is
// itself pollable, so that the Watcher's goroutine waits like any other. A connection costs one system call when it is added and none
// while it works: the set asks for EPOLLRDHUP alone.
type Watcher struct {
	file *os.File // of the epoll set
	set  int      // its descriptor
	done chan struct{}

	mu    sync.Mutex
	over  bool // guarded by mu
	next  uint64
	conns map[uint64]watched // guarded by mu; by token, because a descriptor is used again
}

type watched struct {
	conn   *Conn
	hungUp func()
}

// epollEdge is EPOLLET; the syscall package has it with a sign that the event's field does not take.
const epollEdge = 1 << 31

// NewWatcher starts a Watcher. Close ends it.
func NewWatcher() (*Watcher, error) {
	set, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(set, true); err != nil {
		_ = syscall.Close(set)
		return nil, os.NewSyscallError("fcntl", err)
	}
	w := &Watcher{file: os.NewFile(uintptr(set), "hangups"), set: set, done: make(chan struct{}), conns: map[uint64]watched{}}
	go w.run()
	return w, nil
}

// Close ends the Watcher; no hang-up is reported after it. A nil Watcher does nothing.
func (w *Watcher) Close() error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	w.over = true // the set's descriptor may be another's soon
	err := w.file.Close()
	w.mu.Unlock()
	<-w.done
	return err
}

func (w *Watcher) watch(c *Conn, hungUp func()) {
	if w == nil || c.token != 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	w.next++
	token := w.next
	w.conns[token] = watched{c, hungUp}
	c.token = token
	event := syscall.EpollEvent{Events: syscall.EPOLLRDHUP | epollEdge, Fd: int32(uint32(token)), Pad: int32(uint32(token >> 32))}
	var failed error
	if err := c.raw.Control(func(fd uintptr) { failed = syscall.EpollCtl(w.set, syscall.EPOLL_CTL_ADD, int(fd), &event) }); err != nil || failed != nil {
		delete(w.conns, token) // closed already, or out of memory for events: reads and writes will tell
	}
}

// forget needs no system call: the kernel takes a closed descriptor out of the set.
func (w *Watcher) forget(c *Conn) {
	if w == nil || c.token == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c.token)
}

func (w *Watcher) run() {
	defer close(w.done)
	raw, err := w.file.SyscallConn()
	if err != nil {
		return
	}
	events := make([]syscall.EpollEvent, 128)
	for {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			n, _ = syscall.EpollWait(int(fd), events, 0)
			return n > 0
		})
		if err != nil {
			return
		}
		for _, e := range events[:n] {
			w.report(uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32)
		}
	}
}

func (w *Watcher) report(token uint64) {
	w.mu.Lock()
	found, ok := w.conns[token]
	delete(w.conns, token)
	w.mu.Unlock()
	if !ok {
		return
	}
	found.conn.hung.Store(true)
	if found.hungUp != nil {
		found.hungUp()
	}
}
