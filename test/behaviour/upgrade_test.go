package behaviour

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/test/harness"
)

// webSocketEcho sends every message back, and answers other requests plainly. Extended CONNECT is the same to it as Upgrade.
func webSocketEcho(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodConnect {
		w, r = asUpgrade(w, r)
	}
	if r.Header.Get("Upgrade") == "" {
		fmt.Fprintf(w, "plain")
		return
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"echo.v1"}, InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	conn.SetReadLimit(1 << 20)
	for {
		kind, data, err := conn.Read(r.Context())
		if err != nil {
			return
		}
		if conn.Write(r.Context(), kind, data) != nil {
			return
		}
	}
}

// asUpgrade shows an extended CONNECT (RFC 8441 5) to a WebSocket library that knows the handshake of HTTP/1.1 alone.
func asUpgrade(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request) {
	stream := &connectStream{ResponseWriter: w, body: r.Body}
	up := r.Clone(r.Context())
	up.Method = http.MethodGet
	up.Header.Set("Connection", "Upgrade")
	up.Header.Set("Upgrade", strings.Join(r.Header[":protocol"], ","))
	up.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	if _, sent := r.Header["Sec-Websocket-Key"]; sent {
		up.Header.Del("Upgrade") // the key has no place in extended CONNECT: no WebSocket then
	}
	return stream, up
}

// connectStream is the stream of an extended CONNECT, as the hijacked connection of an Upgrade.
type connectStream struct {
	http.ResponseWriter
	body io.ReadCloser
}

// WriteHeader answers 200 where an Upgrade is answered 101.
func (s *connectStream) WriteHeader(status int) {
	if status == http.StatusSwitchingProtocols {
		for _, name := range []string{"Connection", "Upgrade", "Sec-WebSocket-Accept"} {
			s.Header().Del(name)
		}
		status = http.StatusOK
	}
	s.ResponseWriter.WriteHeader(status)
}

// Hijack returns the stream itself.
func (s *connectStream) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return s, bufio.NewReadWriter(bufio.NewReader(s), bufio.NewWriter(s)), http.NewResponseController(s.ResponseWriter).Flush()
}

func (s *connectStream) Read(p []byte) (int, error) { return s.body.Read(p) }

func (s *connectStream) Write(p []byte) (int, error) {
	n, err := s.ResponseWriter.Write(p)
	if err != nil {
		return n, err
	}
	return n, http.NewResponseController(s.ResponseWriter).Flush()
}

func (s *connectStream) Close() error                     { return s.body.Close() }
func (s *connectStream) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *connectStream) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *connectStream) SetDeadline(time.Time) error      { return nil }
func (s *connectStream) SetReadDeadline(time.Time) error  { return nil }
func (s *connectStream) SetWriteDeadline(time.Time) error { return nil }

// eachWebSocket runs body for these downstream protocols, each to every upstream protocol.
func eachWebSocket(t *testing.T, downs []harness.Down, body func(t *testing.T, c harness.Combo)) {
	t.Helper()
	for _, d := range downs {
		for _, up := range harness.Ups() {
			c := harness.Combo{Down: d, Up: up}
			t.Run(c.String(), func(t *testing.T) {
				t.Parallel()
				body(t, c)
			})
		}
	}
}

func TestWebSocketOverHTTP1(t *testing.T) {
	eachWebSocket(t, []harness.Down{harness.H1, harness.H1TLS}, func(t *testing.T, c harness.Combo) {
		env := harness.New(t, c, webSocketEcho, rule(func(r *config.Rule) {
			r.RequestTimeout = time.Second // bounds the handshake, not the connection
		}))
		ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
		defer cancel()
		transport := &http.Transport{
			TLSClientConfig: harness.ClientTLS(harness.DefaultHost),
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, env.Address())
			},
		}
		defer transport.CloseIdleConnections()
		conn, resp, err := websocket.Dial(ctx, c.Down.Scheme()+"://"+harness.DefaultHost+"/ws", &websocket.DialOptions{
			HTTPClient: &http.Client{Transport: transport}, Subprotocols: []string{"echo.v1"},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.CloseNow()
		if resp.StatusCode != 101 || conn.Subprotocol() != "echo.v1" {
			t.Fatalf("got %d, subprotocol %q", resp.StatusCode, conn.Subprotocol())
		}
		conn.SetReadLimit(1 << 20)
		for _, size := range []int{0, 1, 125, 126, 70_000} {
			want := pattern(size)
			if err := conn.Write(ctx, websocket.MessageBinary, want); err != nil {
				t.Fatal(err)
			}
			_, got, err := conn.Read(ctx)
			if err != nil {
				t.Fatal(err)
			}
			wantBytes(t, "echo", got, want)
		}
		if err := conn.Close(websocket.StatusNormalClosure, "bye"); err != nil {
			t.Errorf("close handshake: %v", err)
		}
	})
}

// frame is one masked text frame of a client (RFC 6455 5.2); the mask is zero.
func frame(text string) string {
	return string([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}) + text
}

func TestWebSocketOverExtendedConnect(t *testing.T) {
	eachWebSocket(t, []harness.Down{harness.H2, harness.H2C, harness.H3}, func(t *testing.T, c harness.Combo) {
		env := harness.New(t, c, webSocketEcho)
		for range 2 {
			s := harness.MustOpen(t, env.Client, harness.Request{
				Method: "CONNECT", Protocol: "websocket", Target: "/ws", Streaming: true,
				Fields: harness.F("Sec-WebSocket-Version", "13", "Sec-WebSocket-Protocol", "echo.v1", "Origin", "https://x.test"),
			})
			r := harness.MustFinal(t, s, 200)
			if r.Fields.Get("Sec-WebSocket-Protocol") != "echo.v1" || r.Fields.Has("Sec-WebSocket-Accept") {
				t.Errorf("got the fields %v", r.Fields)
			}
			for _, text := range []string{"first", "second"} {
				harness.MustWrite(t, s, frame(text))
				if got := harness.MustRead(t, s, 2+len(text)); got[2:] != text {
					t.Fatalf("got %q, want %q", got[2:], text)
				}
			}
			s.Abort()
		}
		if r := harness.MustDo(t, env.Client, harness.Request{}); string(r.Body) != "plain" {
			t.Errorf("the connection is not usable after: got %d %q", r.Status, r.Body)
		}
	})
}

func TestRefusedUpgradePassesThrough(t *testing.T) {
	harness.Each(t, func(t *testing.T, c harness.Combo) {
		env := harness.New(t, c, func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "not here", http.StatusForbidden)
		})
		req := harness.Request{Target: "/ws", Fields: harness.F(
			"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==",
		)}
		if !c.Down.IsH1() {
			req = harness.Request{Method: "CONNECT", Protocol: "websocket", Target: "/ws", Streaming: true}
		}
		r, err := harness.Finish(harness.MustOpen(t, env.Client, req))
		if err != nil || r.Status != 403 || !strings.Contains(string(r.Body), "not here") {
			t.Errorf("got %+v, %v, want the origin's 403", r, err)
		}
	})
}

const handshake = "GET /ws HTTP/1.1\r\nHost: app.example.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

func TestUpgradeWithBodyIsRefused(t *testing.T) {
	origin := harness.NewRecorder(t, harness.AnswerOK)
	env := harness.New(t, harness.Combo{Down: harness.H1, Up: harness.UpH1}, nil, backend(harness.Cluster("rec", harness.UpH1, origin.Addr)))
	for name, rest := range map[string]string{
		"sized":   "Content-Length: 5\r\n\r\nhello",
		"chunked": "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	} {
		got, _ := harness.Raw(env.Address(), handshake+rest, time.Second)
		if !strings.HasPrefix(got, "HTTP/1.1 400 ") {
			t.Errorf("%s: got %.60q, want 400", name, got)
		}
	}
	if got := origin.Bytes(); got != "" {
		t.Errorf("the origin got %q", got)
	}
}

// Bytes that follow the handshake before the origin accepted it may be a smuggled request for an origin that refuses the upgrade.
func TestEarlyBytesAfterUpgradeAreNotDelivered(t *testing.T) {
	accepted := make(chan struct{})
	origin := harness.NewRecorder(t, func(c *harness.RecordedConn) {
		if _, err := c.ReadHead(); err != nil {
			return
		}
		<-accepted
		c.Answer("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
			"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
		io.Copy(io.Discard, c)
	})
	env := harness.New(t, harness.Combo{Down: harness.H1, Up: harness.UpH1}, nil, backend(harness.Cluster("rec", harness.UpH1, origin.Addr)))
	time.AfterFunc(50*time.Millisecond, func() { close(accepted) }) // the early bytes lie in the gateway's buffer by then
	harness.Raw(env.Address(), handshake+"\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n", time.Second)
	if got := origin.Bytes(); strings.Contains(got, "smuggled") {
		t.Errorf("the origin got bytes sent before the 101: %q", got)
	}
}

// An endpoint's refusal leaves nothing of the early bytes behind on the connection either.
func TestEarlyBytesAfterRefusedUpgrade(t *testing.T) {
	origin := harness.NewRecorder(t, harness.AnswerOK)
	env := harness.New(t, harness.Combo{Down: harness.H1, Up: harness.UpH1}, nil, backend(harness.Cluster("rec", harness.UpH1, origin.Addr)))
	conn, err := net.Dial("tcp", env.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%s\r\n", handshake)
	buf := make([]byte, 4096)
	conn.SetReadDeadline(time.Now().Add(harness.Patience))
	n, err := conn.Read(buf)
	if err != nil || !strings.HasPrefix(string(buf[:n]), "HTTP/1.1 200 ") {
		t.Fatalf("got %q, %v, want the origin's 200", buf[:n], err)
	}
}

// Upgrades about the connection itself are not passed on; the request is served as if it had not asked (RFC 9110 7.8).
func TestConnectionUpgradesAreIgnored(t *testing.T) {
	origin := harness.NewRecorder(t, harness.AnswerOK)
	env := harness.New(t, harness.Combo{Down: harness.H1, Up: harness.UpH1}, nil, backend(harness.Cluster("rec", harness.UpH1, origin.Addr)))
	for _, fields := range []string{
		"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
		"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n", "Upgrade: websocket\r\n",
	} {
		got, _ := harness.Raw(env.Address(), "GET / HTTP/1.1\r\nHost: app.example.test\r\n"+fields+"\r\n", 300*time.Millisecond)
		if !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Errorf("%q: got %.80q, want 200", fields, got)
		}
	}
	if got := strings.ToLower(origin.Bytes()); strings.Contains(got, "upgrade") || strings.Contains(got, "http2-settings") {
		t.Errorf("the origin got %q", got)
	}
}
