package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"time"
)

// heartbeat keeps an idle event stream from looking dead to what lies between.
const heartbeat = 15 * time.Second

// tallyState is one event of the stream: how often each version of reviews answered the page so far.
type tallyState struct {
	Total    int            `json:"total"`
	Failed   int            `json:"failed"`
	Versions map[string]int `json:"versions"`
	// Last is the version that answered last, "" when the call failed.
	Last string `json:"last"`
}

// tally counts answers and tells its listeners. A listener learns that something changed and then reads the newest state, so that
// one who reads slowly misses steps between and holds up nobody.
type tally struct {
	mu        sync.Mutex // guards the fields below
	state     tallyState
	listeners map[chan struct{}]struct{}

	closeOnce sync.Once
	closed    chan struct{}
}

func newTally() *tally {
	t := &tally{listeners: map[chan struct{}]struct{}{}, closed: make(chan struct{})}
	t.state.Versions = map[string]int{}
	return t
}

// add counts one answer of a version; "" counts a failure.
func (t *tally) add(version string) {
	t.change(func(s *tallyState) {
		s.Total++
		s.Last = version
		if version == "" {
			s.Failed++
		} else {
			s.Versions[version]++
		}
	})
}

// reset starts at zero again.
func (t *tally) reset() {
	t.change(func(s *tallyState) { *s = tallyState{Versions: map[string]int{}} })
}

func (t *tally) change(do func(*tallyState)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	do(&t.state)
	for c := range t.listeners {
		select {
		case c <- struct{}{}:
		default: // already told
		}
	}
}

func (t *tally) snapshot() tallyState {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.state
	s.Versions = maps.Clone(s.Versions)
	return s
}

// listen returns a channel that gets a value when the state changed, and one at once for the state there is.
func (t *tally) listen() (changed chan struct{}, stop func()) {
	changed = make(chan struct{}, 1)
	changed <- struct{}{}
	t.mu.Lock()
	t.listeners[changed] = struct{}{}
	t.mu.Unlock()
	return changed, func() {
		t.mu.Lock()
		delete(t.listeners, changed)
		t.mu.Unlock()
	}
}

// close ends all streams and refuses new ones.
func (t *tally) close() { t.closeOnce.Do(func() { close(t.closed) }) }

// stream serves the state as server-sent events.
func (t *tally) stream(w http.ResponseWriter, r *http.Request) {
	select {
	case <-t.closed:
		writeError(w, http.StatusServiceUnavailable, "bookinfo is stopping")
		return
	default:
	}
	changed, stop := t.listen()
	defer stop()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	flusher := http.NewResponseController(w)
	for {
		var err error
		select {
		case <-changed:
			err = writeEvent(w, t.snapshot())
		case <-beat.C:
			_, err = fmt.Fprint(w, ": still here\n\n")
		case <-r.Context().Done():
			return
		case <-t.closed:
			return
		}
		if err != nil || flusher.Flush() != nil {
			return // the client is gone
		}
	}
}

func writeEvent(w http.ResponseWriter, s tallyState) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "event: tally\ndata: %s\n\n", data)
	return err
}
