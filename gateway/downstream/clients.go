package downstream

import (
	"context"
	"sync"
)

// clientSet is the TCP connections of a bind.
type clientSet struct {
	mu    sync.Mutex
	list  []*client     // in no order; each knows its place; guarded by mu
	ended bool          // no more are added; guarded by mu
	empty chan struct{} // made by drain, closed when the list is empty; guarded by mu
}

// add returns false when the set takes no more.
func (s *clientSet) add(c *client) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	c.at = len(s.list)
	s.list = append(s.list, c)
	return true
}

// remove does nothing for a client that is not in the set.
func (s *clientSet) remove(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.at >= len(s.list) || s.list[c.at] != c {
		return
	}
	last := len(s.list) - 1
	s.list[c.at] = s.list[last]
	s.list[c.at].at = c.at
	s.list[last] = nil
	s.list = s.list[:last]
	if last == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
}

// all appends the clients to room, for who does something to each: that must not happen with the set locked.
func (s *clientSet) all(room []*client) []*client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(room, s.list...)
}

// drain asks every client to go and waits until they are gone; when ctx ends it cuts those that are left.
func (s *clientSet) drain(ctx context.Context) {
	s.mu.Lock()
	s.ended = true
	if len(s.list) == 0 {
		s.mu.Unlock()
		return
	}
	empty := make(chan struct{})
	s.empty = empty
	s.mu.Unlock()
	for _, c := range s.all(nil) {
		c.drain()
	}
	select {
	case <-empty:
		return
	case <-ctx.Done():
	}
	for _, c := range s.all(nil) {
		c.cut()
	}
	<-empty
}
