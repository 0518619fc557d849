//go:build !linux

package sock

// Watcher waits for peers to hang up, where the system can tell. This one cannot.
type Watcher struct{}

// NewWatcher returns a Watcher that reports nothing.
func NewWatcher() (*Watcher, error) { return &Watcher{}, nil }

// Close does nothing.
func (*Watcher) Close() error { return nil }

func (*Watcher) watch(*Conn, func()) {}

func (*Watcher) forget(*Conn) {}
