package hostile

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"gatehouse.dev/gatehouse/gateway/downstream"
	"gatehouse.dev/gatehouse/test/harness"
)

// briefly is the limit of every state in these tests, and soon how late a limit may be noticed on a busy machine.
const (
	briefly = 300 * time.Millisecond
	soon    = 6 * time.Second
)

func brief() func(*harness.EnvOptions) {
	return limited(func(l *downstream.Limits) {
		*l = downstream.Limits{HandshakeTimeout: briefly, HeaderTimeout: briefly, BodyIdleTimeout: briefly, IdleTimeout: briefly}
	})
}

// TestStatesEnd: a client that stops in whatever state, and says nothing more, loses its connection.
func TestStatesEnd(t *testing.T) {
	t.Parallel()
	const settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	hello := http2.ClientPreface + settings
	for name, tc := range map[string]struct {
		down harness.Down
		// secure makes the handshake first and offers this protocol.
		secure string
		raw    string
	}{
		"connected":                          {harness.H1, "", ""},
		"an empty line":                      {harness.H1, "", "\r\n"},
		"half a request line":                {harness.H1, "", "GET / HT"},
		"half a head":                        {harness.H1, "", get},
		"half a body":                        {harness.H1, "", post + "Content-Length: 5\r\n\r\nhe"},
		"half a chunk":                       {harness.H1, "", chunked + "5\r\nhe"},
		"half a chunk size":                  {harness.H1, "", chunked + "5"},
		"half of the trailers":               {harness.H1, "", chunked + "0\r\nX-A: 1\r\n"},
		"between requests":                   {harness.H1, "", get + "\r\n"},
		"half the preface of HTTP/2":         {harness.H1, "", http2.ClientPreface[:10]},
		"the preface of HTTP/2":              {harness.H1, "", http2.ClientPreface},
		"HTTP/2 without requests":            {harness.H1, "", hello},
		"half a frame's head":                {harness.H1, "", hello + "\x00\x00"},
		"half a frame":                       {harness.H1, "", hello + "\x00\x00\x08\x06\x00\x00\x00\x00\x00ping"},
		"HEADERS without their CONTINUATION": {harness.H1, "", hello + "\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82"},
		"half of a ClientHello":              {harness.H1TLS, "", "\x16\x03\x01\x02\x00\x01\x00"},
		"TLS with nothing in it":             {harness.H1TLS, "http/1.1", ""},
		"half a head in TLS":                 {harness.H1TLS, "http/1.1", get},
		"the preface of HTTP/2 in TLS":       {harness.H1TLS, "h2", http2.ClientPreface},
		"half the preface of HTTP/2 in TLS":  {harness.H1TLS, "h2", http2.ClientPreface[:10]},
		"HTTP/2 in TLS without requests":     {harness.H1TLS, "h2", hello},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, tc.down, harness.AnswerOK, brief())
			conn, err := net.Dial("tcp", b.Address())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(soon))
			if tc.secure != "" {
				tlsConf := harness.ClientTLS(harness.DefaultHost)
				tlsConf.NextProtos = []string{tc.secure}
				secure := tls.Client(conn, tlsConf)
				if err := secure.Handshake(); err != nil {
					t.Fatal(err)
				}
				conn = secure
			}
			_, _ = io.WriteString(conn, tc.raw)
			if got, err := io.ReadAll(conn); isTimeout(err) {
				t.Errorf("the connection goes on after %q", got)
			}
		})
	}
}

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}

// TestStreamsEnd is the same for one stream of a connection that is shared: the stream ends, with an answer or without.
func TestStreamsEnd(t *testing.T) {
	t.Parallel()
	for _, d := range []harness.Down{harness.H2C, harness.H3} {
		t.Run(string(d), func(t *testing.T) {
			t.Parallel()
			b := newBed(t, d, harness.AnswerOK, brief())
			s, err := b.Client.Open(harness.Request{Method: "POST", Streaming: true, Length: 100})
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(s, "he")
			ended := make(chan struct{})
			go func() {
				_, _ = harness.Finish(s)
				close(ended)
			}()
			select {
			case <-ended:
			case <-time.After(soon):
				t.Error("a request whose body stalls is kept")
				s.Abort()
				<-ended
			}
			if all := b.reached(t); len(all) > 0 {
				t.Errorf("the origin got %+v", all)
			}
		})
	}
	t.Run("h3, half a head", func(t *testing.T) {
		t.Parallel()
		// QUIC's own idle time would end the connection first, without a word.
		b := newBed(t, harness.H3, harness.AnswerOK, brief(), limited(func(l *downstream.Limits) { l.IdleTimeout = harness.Patience }))
		conn := b.dialQUIC(t)
		str, err := conn.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = str.Write([]byte(headers(request(harness.H3)))[:5])
		_ = str.SetReadDeadline(time.Now().Add(soon))
		if _, err := io.ReadAll(str); isTimeout(err) {
			t.Error("a head that stalls is waited for")
		}
	})
	t.Run("h3, no requests", func(t *testing.T) {
		t.Parallel()
		b := newBed(t, harness.H3, harness.AnswerOK, brief())
		conn := b.dialQUIC(t)
		ctx, cancel := context.WithTimeout(conn.Context(), soon)
		defer cancel()
		<-ctx.Done()
		if conn.Context().Err() == nil {
			t.Error("a connection without requests is kept")
		}
	})
}

// TestBodiesTrickle: a body that said how long it is and comes a byte at a time, each just in time, must not last for ever: there is a least rate.
// One that did not may be a conversation.
func TestBodiesTrickle(t *testing.T) {
	t.Parallel()
	for _, d := range []harness.Down{harness.H1, harness.H2C, harness.H3} {
		t.Run(string(d), func(t *testing.T) {
			t.Parallel()
			b := newBed(t, d, harness.AnswerOK, brief())
			s, err := b.Client.Open(harness.Request{Method: "POST", Streaming: true, Length: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Abort()
			ended := make(chan struct{})
			go func() {
				_, _ = harness.Final(s)
				close(ended)
			}()
			defer func() { <-ended }()
			defer s.Abort()
			pace := time.NewTicker(briefly / 4)
			defer pace.Stop()
			for over := time.After(soon); ; {
				select {
				case <-ended:
					return
				case <-over:
					t.Errorf("a body of a byte every %v goes on after %v", briefly/4, soon)
					return
				case <-pace.C:
					_, _ = io.WriteString(s, "a") // an error is the end, which is waited for above
				}
			}
		})
	}
}
