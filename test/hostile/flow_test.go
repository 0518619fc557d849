package hostile

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/test/harness"
)

// What comes one after another on a connection must stay apart: requests behind requests, bodies that nobody read, bytes that were meant for
// somebody else.

// eachFlow runs body for HTTP/1.1, HTTP/2 and HTTP/3 clients.
func eachFlow(t *testing.T, body func(t *testing.T, d harness.Down)) {
	t.Helper()
	for _, d := range []harness.Down{harness.H1, harness.H2C, harness.H3} {
		t.Run(string(d), func(t *testing.T) {
			t.Parallel()
			body(t, d)
		})
	}
}

// TestPipeline sends requests in one write. Those before a malformed one are served, in order; nothing behind it is.
func TestPipeline(t *testing.T) {
	t.Parallel()
	first := "GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\n"
	sized := "POST /2 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 50\r\n\r\n" + smuggled
	chunks := "POST /3 HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n32\r\n" + smuggled + "\r\n0\r\nX-A: 1\r\n\r\n"
	last := "GET /4 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
	for name, tc := range map[string]struct {
		raw  string
		want string // the targets that reach the origin
		end  string // the status of the last answer
	}{
		"all well":                  {first + sized + chunks + last, "/1 /2 /3 /4", "200"},
		"behind a close":            {last + first, "/4", "200"},
		"behind a bad length":       {first + "POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5x\r\n\r\nhello" + last, "/1", "400"},
		"behind a bad chunk":        {first + "POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX" + last, "/1", "400"},
		"behind a bad trailer":      {first + "POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX A: 1\r\n\r\n" + last, "/1", "400"},
		"behind both framings":      {first + "POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + last, "/1", "400"},
		"behind HTTP/1.0":           {"GET /1 HTTP/1.0\r\nHost: a.test\r\n\r\n" + last, "/1", "200"},
		"behind a refused Upgrade":  {first + "GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 50\r\n\r\n" + smuggled, "/1", "400"},
		"behind an Upgrade to HTTP": {first + "GET /2 HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n" + last, "/1 /2 /4", "200"},
		"behind TRACE":              {"TRACE /x HTTP/1.1\r\nHost: a.test\r\n\r\n" + last, "/4", "200"},
		"behind a HEAD":             {"HEAD /1 HTTP/1.1\r\nHost: a.test\r\n\r\n" + last, "/1 /4", "200"},
		"an HTTP/2 preface behind":  {first + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "/1", "400"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, harness.H1, answerTargets)
			answer := b.send(t, tc.raw)
			var got []string
			for _, m := range b.reached(t) {
				_, target, _ := strings.Cut(m.line, " ")
				got = append(got, target)
				if strings.HasPrefix(m.line, "POST ") && m.body != smuggled {
					t.Errorf("the body of %s is %q", m.line, m.body)
				}
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("the origin got %q, want %s; the client got %.500q", got, tc.want, answer)
			}
			at := strings.LastIndex(answer, "HTTP/1.1 ")
			if at < 0 || !strings.HasPrefix(answer[at:], "HTTP/1.1 "+tc.end) {
				t.Errorf("the client got %.500q, want %s last", answer, tc.end)
			}
			position := 0
			for _, target := range got {
				next := strings.Index(answer[position:], "\r\nX-Target: "+target+"\r\n")
				if next < 0 {
					t.Errorf("the answer to %s is missing or out of order: %.500q", target, answer)
				}
				position += max(next, 0)
			}
		})
	}
}

// answerTargets answers each request with its target.
func answerTargets(c *harness.RecordedConn) {
	for {
		head, err := c.ReadHead()
		if err != nil {
			return
		}
		if _, err := c.ReadBody(head); err != nil {
			return
		}
		_, rest, _ := strings.Cut(head, " ")
		path, _, _ := strings.Cut(rest, " ")
		c.Answer(ok + "X-Target: " + path + "\r\nContent-Length: 0\r\n\r\n")
	}
}

// impatient answers as soon as it has a request's head, and then takes what comes for another request: an origin that loses its place.
func impatient(status string) func(*harness.RecordedConn) {
	return func(c *harness.RecordedConn) {
		for {
			if _, err := c.ReadHead(); err != nil {
				return
			}
			c.Answer("HTTP/1.1 " + status + "\r\nContent-Length: 2\r\n\r\nok")
		}
	}
}

// TestEarlyAnswers: an answer that came before the request's body was sent says nothing about the rest of that body. Neither the client's
// connection nor the origin's may carry another request where the body's bytes are expected.
func TestEarlyAnswers(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fields harness.Fields
		status string
		sent   string
	}{
		"in place of 100":         {harness.F("Expect", "100-continue"), "403 Forbidden", ""},
		"200 in place of 100":     {harness.F("Expect", "100-continue"), "200 OK", ""},
		"417 in place of 100":     {harness.F("Expect", "100-continue"), "417 Expectation Failed", ""},
		"within the body":         {nil, "200 OK", "hello"},
		"an error in the body":    {nil, "500 Internal Server Error", "hello"},
		"before the body's start": {nil, "200 OK", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachFlow(t, func(t *testing.T, d harness.Down) {
				b := newBed(t, d, impatient(tc.status))
				s, err := b.Client.Open(harness.Request{Method: "POST", Fields: tc.fields, Streaming: true, Length: 1000})
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.WriteString(s, tc.sent)
				r, err := harness.Final(s)
				if err != nil || fmt.Sprint(r.Status) != tc.status[:3] {
					t.Errorf("got %+v, %v, want %s", r, err, tc.status)
				}
				_, _ = io.WriteString(s, smuggled) // what is body to the client
				_, _ = io.ReadAll(s)
				for i := range 3 {
					if r, err := harness.Do(b.NewClient(t), harness.Request{Target: fmt.Sprintf("/honest%d", i)}); err != nil || string(r.Body) != "ok" {
						t.Errorf("an honest request: %+v, %v", r, err)
					}
				}
				honest := 0
				for _, m := range b.reached(t) {
					if strings.HasPrefix(m.line, "GET /honest") {
						honest++
					} else {
						t.Errorf("the origin got %+v", m)
					}
				}
				if honest != 3 {
					t.Errorf("%d of 3 honest requests reached the origin as such: %q", honest, b.origin.Bytes())
				}
			})
		})
	}
}

// TestEarlyTunnelBytes: what a client sends behind a request for a tunnel stays here until the origin agreed, and for good when it does not.
func TestEarlyTunnelBytes(t *testing.T) {
	t.Parallel()
	for _, d := range []harness.Down{harness.H2C, harness.H3} {
		t.Run(string(d), func(t *testing.T) {
			t.Parallel()
			b := newBed(t, d, impatient("403 Forbidden"))
			s, err := b.Client.Open(harness.Request{Method: "CONNECT", Protocol: "websocket", Fields: harness.F("Sec-WebSocket-Version", "13"), Streaming: true})
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(s, smuggled)
			if r, err := harness.Final(s); err != nil || r.Status != 403 {
				t.Errorf("got %+v, %v, want 403", r, err)
			}
			for range 2 {
				if r, err := harness.Do(b.Client, harness.Request{Target: "/honest"}); err != nil || r.Status != 403 {
					t.Errorf("an honest request: %+v, %v", r, err)
				}
			}
			if got := b.origin.Bytes(); strings.Contains(got, "smuggled") {
				t.Errorf("the origin got the tunnel's bytes: %q", got)
			}
			b.reached(t)
		})
	}
	t.Run("h1", func(t *testing.T) {
		t.Parallel()
		b := newBed(t, harness.H1, impatient("403 Forbidden"))
		answer := b.send(t, get+"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"+smuggled)
		if all := b.reached(t); len(all) != 1 || strings.Contains(b.origin.Bytes(), "smuggled") {
			t.Errorf("the origin got %q; the client got %q", b.origin.Bytes(), answer)
		}
	})
}

// TestQueries: a query reaches the origin byte for byte, or the request is refused.
func TestQueries(t *testing.T) {
	t.Parallel()
	queries := []string{
		"a;b", "a=%zz", "%", "a=%00", "a=1&a=2&&=&=x", "a[]=1", "?", "a?b", "a=b=c", "a=%2525", "a+b", "'\"<>", "a|b", "{}", "a\\b", "a^b`",
		"//../..", "http://evil.test/",
		strings.Repeat("a=1&", 10_000), "%FF%FE", "a=%c0%af", "~", "",
	}
	eachFlow(t, func(t *testing.T, d harness.Down) {
		b := newBed(t, d, answerTargets)
		for _, query := range queries {
			r, err := harness.Do(b.Client, harness.Request{Target: "/p?" + query})
			if err != nil {
				t.Errorf("%.50q: %v", query, err)
				continue
			}
			if got := r.Fields.Get("X-Target"); r.Status == 200 && got != "/p?"+query || r.Status != 200 && r.Status/100 != 4 {
				t.Errorf("%.50q: got %d, the origin got %.60q", query, r.Status, got)
			}
		}
	})
}
