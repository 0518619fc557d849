package hostile

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"gatehouse.dev/gatehouse/gateway/downstream"
	"gatehouse.dev/gatehouse/test/harness"
)

// TestFailuresLeaveOthersAlone: what a failed request used is used again for others' requests, and must be theirs alone then. Answers that wait
// for a client to read them have the longest time to be spoilt:
//
//  1. many requests fail
//  2. a client asks for much, and for many small answers behind that, and reads nothing: the answers' heads wait in the gateway
//  3. many requests fail, and others are served
//  4. the client reads: each answer is its own
func TestFailuresLeaveOthersAlone(t *testing.T) {
	t.Parallel()
	for name, fail := range failures() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newReuseBed(t)
			many := func() {
				var all sync.WaitGroup
				for range 96 {
					all.Go(func() {
						client := f.NewClient(t)
						for range 3 {
							_, _ = harness.Do(client, harness.Request{Target: "/honest"})
							fail(client)
						}
					})
				}
				all.Wait()
			}
			many()
			a := f.attack2(t, true, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
			defer a.Close()
			_ = a.frame.WriteWindowUpdate(0, 1<<30)
			a.open(1, true, ":path", "/huge") // fills the socket
			a.open(3, true, ":path", "/huge") // fills what may wait to be written
			_ = a.out.Flush()
			if !f.wait(2, false) {
				t.Fatal("the requests do not come to the origin")
			}
			for i := range uint32(waiting) {
				a.open(2*i+5, true, ":path", fmt.Sprintf("/waiting/%d", 2*i+5))
			}
			_ = a.out.Flush()
			if !f.wait(2+waiting, false) {
				t.Fatal("the requests do not come to the origin")
			}
			many()
			if err := f.read(a); err != nil {
				t.Error(err)
			}
		})
	}
}

// waiting is how many small answers wait: a part of what is at work while many requests fail.
const waiting = 24

// failures are ways for a request to fail once its way to the origin began.
func failures() map[string]func(client harness.Client) {
	return map[string]func(client harness.Client){
		"by the origin": func(client harness.Client) { _, _ = harness.Do(client, harness.Request{Target: "/end"}) },
		"by the client": func(client harness.Client) {
			if s, err := client.Open(harness.Request{Method: "POST", Target: "/honest", Streaming: true, Length: 100}); err == nil {
				_, _ = io.WriteString(s, "hello")
				s.Abort()
			}
		},
		"by a malformed body": func(client harness.Client) {
			_, _ = harness.Do(client, harness.Request{
				Method: "POST", Target: "/honest", Body: []byte("hello"), Unsized: true, Trailers: harness.F("x a", "1"),
			})
		},
	}
}

// newReuseBed starts a gateway in front of an origin that names a request's path in twelve fields of its answer.
func newReuseBed(t *testing.T) *floodBed {
	t.Helper()
	f := &floodBed{}
	f.change = sync.NewCond(&f.mu)
	huge := strings.Repeat("0123456789abcdef", mebibyte)
	f.bed = &bed{Env: harness.New(t, harness.Combo{Down: harness.H2C, Up: harness.UpH1}, func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case path == "/end":
			panic(http.ErrAbortHandler)
		case path == "/huge":
			_, _ = io.WriteString(w, huge[:mebibyte])
			f.enter() // the gateway has taken what its buffers and sockets hold, or is about to
			_, _ = io.WriteString(w, huge)
			return
		case strings.HasPrefix(path, "/waiting/"):
			defer f.enter()
		}
		_, _ = io.Copy(io.Discard, r.Body)
		for i := range 12 {
			w.Header().Set(fmt.Sprintf("X-%d", i), r.URL.Path)
		}
	}, limited(func(l *downstream.Limits) { l.BodyIdleTimeout = harness.Patience }))}
	return f
}

// read reads the answers and holds each against its path.
func (f *floodBed) read(a *attacker2) error {
	_ = a.SetDeadline(time.Now().Add(harness.Patience))
	in := http2.NewFramer(io.Discard, a.Conn)
	in.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for left := waiting; left > 0; {
		frame, err := in.ReadFrame()
		if err != nil {
			return fmt.Errorf("%d answers are missing: %w", left, err)
		}
		switch frame := frame.(type) {
		case *http2.GoAwayFrame:
			return fmt.Errorf("%d answers are missing: GOAWAY %v", left, frame.ErrCode)
		case *http2.RSTStreamFrame:
			return fmt.Errorf("the answer on stream %d was reset: %v", frame.StreamID, frame.ErrCode)
		case *http2.MetaHeadersFrame:
			if frame.StreamID <= 3 {
				continue
			}
			left--
			right := 0
			for _, field := range frame.RegularFields() {
				if strings.HasPrefix(field.Name, "x-") && field.Value == fmt.Sprintf("/waiting/%d", frame.StreamID) {
					right++
				}
			}
			if frame.PseudoValue("status") != "200" || right != 12 {
				return errors.Join(errors.New("another's answer, or none"), fmt.Errorf("on stream %d: %v", frame.StreamID, frame.Fields))
			}
		}
	}
	return nil
}
