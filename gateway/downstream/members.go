package downstream

import (
	"context"
	"sync"
)

// member is a connection in a set.
type member interface {
	comparable
	session
	// place is where the member keeps its index in the set, which owns it.
	place() *int
}

// members is the connections of a socket: the TCP ones of a bind, or the QUIC ones.
type members[M member] struct {
	mu    sync.Mutex
	list  []M           // in no order; each knows its place; guarded by mu
	ended bool          // no more are added; guarded by mu
	empty chan struct{} // made by drain, closed when the list is empty; guarded by mu
}

// add returns false when the set takes no more.
func (s *members[M]) add(m M) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	*m.place() = len(s.list)
	s.list = append(s.list, m)
	return true
}

// over reports whether the set takes no more.
func (s *members[M]) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// remove does nothing for a member that is not in the set.
func (s *members[M]) remove(m M) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := *m.place()
	if at >= len(s.list) || s.list[at] != m {
		return
	}
	last := len(s.list) - 1
	s.list[at] = s.list[last]
	*s.list[at].place() = at
	clear(s.list[last:])
	s.list = s.list[:last]
	if last == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
}

// all appends the members to room, for who does something to each: that must not happen with the set locked.
func (s *members[M]) all(room []M) []M {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(room, s.list...)
}

// drain asks every member to go and waits until they are gone; when ctx ends it cuts those that are left.
func (s *members[M]) drain(ctx context.Context) {
	s.mu.Lock()
	s.ended = true
	if len(s.list) == 0 {
		s.mu.Unlock()
		return
	}
	empty := make(chan struct{})
	s.empty = empty
	s.mu.Unlock()
	for _, m := range s.all(nil) {
		m.drain()
	}
	select {
	case <-empty:
		return
	case <-ctx.Done():
	}
	for _, m := range s.all(nil) {
		m.cut()
	}
	<-empty
}
