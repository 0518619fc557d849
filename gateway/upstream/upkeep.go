package upstream

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/gateway/sock"
)

// tickPeriod is how often idle connections are looked at: a limit fires up to a period late, never early.
const tickPeriod = 500 * time.Millisecond

// idleTicks is IdleTimeout in ticks.
const idleTicks = uint32(IdleTimeout / tickPeriod)

// upkeep is what runs beside the exchanges: the watcher for endpoints that hang up, and a ticker for what is overdue. Both start with the
// first connection, so that a Manager that carries nothing costs nothing.
type upkeep struct {
	logger *slog.Logger
	tick   func(now time.Time) // called from the ticker's goroutine
	began  time.Time           // what clock counts from

	// ticks is a coarse clock: it counts periods.
	ticks atomic.Uint32

	mu      sync.Mutex
	hangups *sock.Watcher // nil before the first connection and after close; guarded by mu
	stop    chan struct{} // ends the ticker; nil when there is none; guarded by mu
	closed  bool          // guarded by mu
	running sync.WaitGroup
}

// clock is a time for comparing with others of it.
func (u *upkeep) clock() time.Duration { return time.Since(u.began) }

// watcher returns the watcher for a new connection, nil when there is none.
func (u *upkeep) watcher() *sock.Watcher {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.stop == nil && !u.closed {
		u.start()
	}
	return u.hangups
}

// start is called with mu held.
func (u *upkeep) start() {
	hangups, err := sock.NewWatcher()
	if err != nil {
		u.logger.Warn("endpoints that hang up are noticed late: no watcher", "error", err)
	}
	u.hangups = hangups
	stop := make(chan struct{})
	u.stop = stop
	u.running.Go(func() {
		ticker := time.NewTicker(tickPeriod)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				u.ticks.Add(1)
				u.tick(time.Now()) // the tick may have waited, and a limit must not fire early
			case <-stop:
				return
			}
		}
	})
}

// close ends what runs. It may be called again.
func (u *upkeep) close() error {
	u.mu.Lock()
	stop, hangups := u.stop, u.hangups
	u.stop, u.hangups, u.closed = nil, nil, true
	u.mu.Unlock()
	if stop != nil {
		close(stop)
		u.running.Wait()
	}
	return hangups.Close()
}
