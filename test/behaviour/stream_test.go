package behaviour

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/test/harness"
)

// wait fails the test unless the signal comes.
func wait(t *testing.T, what string, signal <-chan struct{}) {
	t.Helper()
	select {
	case <-signal:
	case <-time.After(harness.Patience):
		t.Fatalf("%s did not happen within %v", what, harness.Patience)
	}
}

func TestResponseIsStreamed(t *testing.T) {
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		next := make(chan struct{})
		env := harness.New(t, c, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.(http.Flusher).Flush()
			for _, event := range []string{"data: 1\n\n", "data: 2\n\n", "data: 3\n\n"} {
				<-next
				io.WriteString(w, event)
				w.(http.Flusher).Flush()
			}
		})
		s := harness.MustOpen(t, env.Client, harness.Request{Fields: harness.F("Accept", "text/event-stream")})
		harness.MustFinal(t, s, 200) // the head comes before the first event
		for _, want := range []string{"data: 1\n\n", "data: 2\n\n", "data: 3\n\n"} {
			next <- struct{}{}
			if got := harness.MustRead(t, s, len(want)); got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
		}
		if rest, err := io.ReadAll(s); err != nil || len(rest) > 0 {
			t.Errorf("got %q and %v after the last event, want a clean end", rest, err)
		}
	})
}

func TestRequestIsStreamed(t *testing.T) {
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		arrived := make(chan string)
		env := harness.New(t, c, func(w http.ResponseWriter, r *http.Request) {
			for {
				buf := make([]byte, 5)
				if _, err := io.ReadFull(r.Body, buf); err != nil {
					break
				}
				arrived <- string(buf)
			}
			io.WriteString(w, "done")
		})
		s := harness.MustOpen(t, env.Client, harness.Request{Method: "POST", Streaming: true})
		for _, part := range []string{"part1", "part2", "part3"} {
			harness.MustWrite(t, s, part)
			select {
			case got := <-arrived:
				if got != part {
					t.Fatalf("the origin got %q, want %q", got, part)
				}
			case <-time.After(harness.Patience):
				t.Fatalf("%q did not reach the origin while the request was open", part)
			}
		}
		if err := s.CloseWrite(nil); err != nil {
			t.Fatal(err)
		}
		if r, err := harness.Finish(s); err != nil || r.Status != 200 || string(r.Body) != "done" || r.Err != nil {
			t.Fatalf("got %+v, %v", r, err)
		}
	})
}

func TestFullDuplex(t *testing.T) {
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		env := harness.New(t, c, func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).EnableFullDuplex()
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			buf := make([]byte, 1024)
			for {
				n, err := r.Body.Read(buf)
				w.Write(buf[:n])
				w.(http.Flusher).Flush()
				if err != nil {
					return
				}
			}
		})
		s := harness.MustOpen(t, env.Client, harness.Request{Method: "POST", Streaming: true})
		if c.Up == harness.UpH1 || c.Down.IsH1() {
			harness.MustWrite(t, s, "0") // an HTTP/1.1 server may wait for the body's first byte
			harness.MustFinal(t, s, 200)
			harness.MustRead(t, s, 1)
		} else {
			harness.MustFinal(t, s, 200)
		}
		for _, part := range []string{"ping", "and", "pong"} {
			harness.MustWrite(t, s, part)
			if got := harness.MustRead(t, s, len(part)); got != part {
				t.Fatalf("got %q, want %q", got, part)
			}
		}
		if err := s.CloseWrite(nil); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(s); err != nil || len(rest) > 0 {
			t.Errorf("got %q and %v at the end, want a clean end", rest, err)
		}
	})
}

func TestTrailers(t *testing.T) {
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		var sawBody box[string]
		var saw box[http.Header]
		env := harness.New(t, c, func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			sawBody.set(string(b))
			saw.set(r.Trailer.Clone())
			w.Header().Set("Trailer", "X-Announced")
			io.WriteString(w, "out")
			w.(http.Flusher).Flush()
			w.Header().Set("X-Announced", "1")
			w.Header().Set(http.TrailerPrefix+"X-Not-Announced", "2")
		})
		r := harness.MustDo(t, env.Client, harness.Request{
			Method: "POST", Body: []byte("in"), Unsized: true,
			Fields:   harness.F("Trailer", "X-Sum, X-Other", "TE", "trailers"),
			Trailers: harness.F("X-Sum", "abc", "X-Other", "def"),
		})
		body, seen := sawBody.get(), saw.get()
		if body != "in" || seen.Get("X-Sum") != "abc" || seen.Get("X-Other") != "def" {
			t.Errorf("the origin got body %q with trailers %v", body, seen)
		}
		if string(r.Body) != "out" || r.Trailers.Get("X-Announced") != "1" || r.Trailers.Get("X-Not-Announced") != "2" {
			t.Errorf("the client got body %q with trailers %v", r.Body, r.Trailers)
		}
	})
}

// Trailers never carry what frames, routes or identifies (RFC 9110 6.5.1).
func TestDangerousTrailersAreDropped(t *testing.T) {
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		var saw box[http.Header]
		env := harness.New(t, c, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			saw.set(r.Trailer.Clone())
		})
		r, err := harness.Do(env.Client, harness.Request{
			Method: "POST", Body: []byte("in"), Unsized: true,
			Fields: harness.F("Trailer", "X-Good, X-Forwarded-For, X_Forwarded_For, Authorization, Cookie, X-Real-Ip"),
			Trailers: harness.F(
				"X-Good", "1", "X-Forwarded-For", "6.6.6.6", "X_Forwarded_For", "6.6.6.6", "Authorization", "Basic eA==",
				"Cookie", "a=b", "X-Real-Ip", "6.6.6.6",
			),
		})
		if err == nil && r.Status == 400 || errors.Is(err, harness.ErrReset) {
			return // refusing them is as good
		}
		if err != nil {
			t.Fatal(err)
		}
		for name, values := range saw.get() {
			if name != "X-Good" && len(values) > 0 {
				t.Errorf("trailer %s reached the origin: %q", name, values)
			}
		}
	})
}

func TestContinueAccepted(t *testing.T) {
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		env := harness.New(t, c, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body) // net/http sends 100 on the first read
			w.Write(body)
		})
		s := harness.MustOpen(t, env.Client, harness.Request{
			Method: "POST", Streaming: true, Length: 5, Fields: harness.F("Expect", "100-continue"),
		})
		h, err := s.Next()
		if err != nil || h.Status != 100 {
			t.Fatalf("got %d, %v, want 100 before the body", h.Status, err)
		}
		harness.MustWrite(t, s, "hello")
		s.CloseWrite(nil)
		if r, err := harness.Finish(s); err != nil || r.Status != 200 || string(r.Body) != "hello" {
			t.Fatalf("got %+v, %v", r, err)
		}
	})
}

// An origin that refuses before it read the body answers at once; the connection is not desynchronised for the next request.
func TestContinueRefused(t *testing.T) {
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		env := harness.New(t, c, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "POST" {
				http.Error(w, "too big for me", http.StatusRequestEntityTooLarge)
				return
			}
			io.WriteString(w, "next")
		})
		s := harness.MustOpen(t, env.Client, harness.Request{
			Method: "POST", Streaming: true, Length: 5, Fields: harness.F("Expect", "100-continue"),
		})
		h, err := s.Next()
		if err == nil && h.Status == 100 && !c.Down.IsH1() {
			// net/http's HTTP/2 server hides Expect and asks for the body by itself; the refusal then follows the body.
			io.WriteString(s, "hello") // the refusal may be faster
			s.CloseWrite(nil)
			h, err = s.Next()
		}
		if err != nil || h.Status != 413 {
			t.Fatalf("got %+v, %v, want 413 without the body", h, err)
		}
		s.Abort()
		for range 3 {
			if r := harness.MustDo(t, env.Client, harness.Request{}); string(r.Body) != "next" {
				t.Fatalf("the request after it got %d %q", r.Status, r.Body)
			}
		}
	})
}

func TestEarlyHints(t *testing.T) {
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		hinted := make(chan struct{})
		env := harness.New(t, c, func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Link"] = []string{"</a.css>; rel=preload", "</b.js>; rel=preload"}
			w.WriteHeader(http.StatusEarlyHints)
			<-hinted
			w.Header()["Link"] = nil
			w.Header().Set("X-Final", "1")
			io.WriteString(w, "page")
		})
		s := harness.MustOpen(t, env.Client, harness.Request{})
		h, err := s.Next()
		close(hinted)
		if err != nil || h.Status != 103 || !slices.Equal(h.Fields.Values("Link"), []string{"</a.css>; rel=preload", "</b.js>; rel=preload"}) {
			t.Fatalf("got %+v, %v, want 103 with both links before the final head", h, err)
		}
		r, err := harness.Finish(s)
		if err != nil || r.Status != 200 || string(r.Body) != "page" || r.Fields.Has("Link") || r.Fields.Get("X-Final") != "1" {
			t.Fatalf("got %+v, %v", r, err)
		}
	})
}

// A response that broke off must never look whole.
func TestTruncatedResponseIsAnError(t *testing.T) {
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		env := harness.New(t, c, func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/sized") {
				w.Header().Set("Content-Length", "100")
			}
			io.WriteString(w, "half")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		})
		for _, target := range []string{"/sized", "/unsized"} {
			r, err := harness.Do(env.Client, harness.Request{Target: target})
			switch {
			case err != nil && c.Down == harness.H3: // a QUIC reset may overtake the head
			case err != nil:
				t.Errorf("%s: no head came: %v", target, err)
			case r.Status != 200:
				t.Errorf("%s: got %d", target, r.Status)
			case r.Err == nil:
				t.Errorf("%s: got a clean end after %q", target, r.Body)
			}
		}
	})
}

func TestClientAbortCancelsUpstream(t *testing.T) {
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		for name, partial := range map[string]bool{"before the head": false, "within the body": true} {
			reached, cancelled := make(chan struct{}), make(chan struct{})
			env := harness.New(t, c, func(w http.ResponseWriter, r *http.Request) {
				if partial {
					w.(http.Flusher).Flush()
				}
				close(reached)
				<-r.Context().Done()
				close(cancelled)
			})
			s := harness.MustOpen(t, env.Client, harness.Request{})
			wait(t, "the request reaching the origin", reached)
			if partial {
				harness.MustFinal(t, s, 200)
			}
			s.Abort()
			wait(t, "the cancellation reaching the origin ("+name+")", cancelled)
		}
	})
}

// A client that gives up within its body must not look like one that finished it.
func TestClientAbortWithinBody(t *testing.T) {
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		result := make(chan error, 1)
		first := make(chan struct{})
		env := harness.New(t, c, func(w http.ResponseWriter, r *http.Request) {
			buf := make([]byte, 4)
			io.ReadFull(r.Body, buf)
			close(first)
			_, err := io.Copy(io.Discard, r.Body)
			result <- err
		})
		s := harness.MustOpen(t, env.Client, harness.Request{Method: "POST", Streaming: true})
		harness.MustWrite(t, s, "part")
		wait(t, "the first part reaching the origin", first)
		s.Abort()
		select {
		case err := <-result:
			if err == nil {
				t.Error("the origin saw a clean end of a body that was given up")
			}
		case <-time.After(harness.Patience):
			t.Error("the origin was not told that the client gave up")
		}
	})
}

// An answer before the request's end reaches the client, and the connections stay in order.
func TestEarlyAnswer(t *testing.T) {
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		env := harness.New(t, c, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "POST" {
				http.NewResponseController(w).EnableFullDuplex() // or an HTTP/1.1 server would read the body first
				w.WriteHeader(http.StatusForbidden)
				io.WriteString(w, "no")
				return
			}
			io.WriteString(w, "next")
		})
		for range 3 {
			s := harness.MustOpen(t, env.Client, harness.Request{Method: "POST", Streaming: true})
			io.WriteString(s, "some bytes") // the answer may be faster
			r, err := harness.Final(s)
			if err != nil || r.Status != 403 {
				t.Fatalf("got %+v, %v, want 403 while the request is open", r, err)
			}
			if body, err := io.ReadAll(s); string(body) != "no" || err != nil && !errors.Is(err, harness.ErrReset) {
				t.Errorf("got body %q, %v", body, err)
			}
			s.Abort()
			if r := harness.MustDo(t, env.Client, harness.Request{}); string(r.Body) != "next" {
				t.Fatalf("the request after it got %d %q", r.Status, r.Body)
			}
		}
	})
}
