package hostile

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/downstream"
	"gatehouse.dev/gatehouse/test/harness"
)

// passage is a gateway that passes TLS for *.pass.test on to an origin that records.
func passage(t testing.TB, limits downstream.Limits) (address string, origin *harness.Recorder) {
	t.Helper()
	origin = harness.NewRecorder(t, func(c *harness.RecordedConn) { _, _ = io.Copy(io.Discard, c) })
	cluster := harness.Cluster("recorder", harness.UpH1, origin.Addr)
	g := harness.NewGateway(t, harness.GatewayOptions{Limits: limits})
	port, _ := g.ApplyOnFreePort(func(port uint16) *config.Config {
		return harness.Config([]*config.Listener{harness.FlowListener(config.TLS, "pass", "", port,
			harness.FlowRoute("r", []string{"*.pass.test"}, harness.To(cluster)...))}, cluster)
	})
	return harness.Address(port), origin
}

// helloFor returns the ClientHello record that crypto/tls sends for a name.
func helloFor(t testing.TB, name string) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	got := make(chan []byte, 1)
	go func() {
		room := make([]byte, 64<<10)
		n, _ := theirs.Read(room)
		theirs.Close()
		got <- room[:n]
	}()
	_ = tls.Client(ours, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake()
	return <-got
}

// record is a TLS record of type handshake.
func record(p []byte) []byte {
	return append([]byte{0x16, 3, 1, byte(len(p) >> 8), byte(len(p))}, p...)
}

// TestClientHellos: before the server name is known nothing reaches an origin, and nothing is waited for or kept without bound; a hello that
// cannot be understood is refused.
func TestClientHellos(t *testing.T) {
	t.Parallel()
	hello := helloFor(t, "a.pass.test")
	message := hello[5:]
	endless := append([]byte{1, 0xff, 0xff, 0xff}, make([]byte, 1<<10)...) // a message of 16 MiB
	repeat := func(p []byte, times int) string { return strings.Repeat(string(p), times) }
	for name, sent := range map[string]string{
		"a message without end":            string(record(endless)) + repeat(record(make([]byte, 16<<10)), 64),
		"a byte a record without end":      string(record(endless[:5])) + repeat(record([]byte{0}), 40_000),
		"empty records":                    repeat(record(nil), 40_000),
		"an oversized record":              "\x16\x03\x01\xff\xff" + repeat([]byte{0}, 70_000),
		"alerts":                           repeat([]byte{0x15, 3, 1, 0, 2, 1, 0}, 10_000),
		"application data first":           string([]byte{0x17, 3, 3, 0, 5}) + "hello",
		"HTTP":                             "GET / HTTP/1.1\r\nHost: a.pass.test\r\n\r\n",
		"another message":                  string(record(append([]byte{2}, message[1:]...))),
		"a length that is too short":       string(record(append([]byte{1, 0, 0, 10}, message[4:]...))),
		"a name that is cut":               string(record(bytes.Replace(message, []byte("a.pass.test"), []byte("a.pass.t"), 1))),
		"a name with NUL":                  string(record(bytes.Replace(message, []byte("a.pass.test"), []byte("\x00.pass.test"), 1))),
		"a name with a star":               string(record(bytes.Replace(message, []byte("a.pass.test"), []byte("*.pass.test"), 1))),
		"a name with a slash":              string(record(bytes.Replace(message, []byte("a.pass.test"), []byte("/.pass.test"), 1))),
		"half, and the end":                string(hello[:len(hello)/2]),
		"a name that nobody has":           string(record(bytes.Replace(message, []byte("a.pass.test"), []byte("a.miss.test"), 1))),
		"the name's suffix alone":          string(helloFor(t, "pass.test")),
		"no name":                          string(helloFor(t, "")),
		"a name of another case in labels": string(helloFor(t, "pass.test.a")),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, origin := passage(t, downstream.Limits{HandshakeTimeout: time.Second})
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			answer := exchanged(conn, sent)
			if got := origin.Bytes(); got != "" {
				t.Errorf("the origin got %d bytes: %.60q", len(got), got)
			}
			if len(answer) > 7 { // an alert at most
				t.Errorf("the client got %q", answer)
			}
		})
	}
}

// TestClientHelloTrickles: a byte now and then does not keep a connection whose hello is not whole in time.
func TestClientHelloTrickles(t *testing.T) {
	t.Parallel()
	address, origin := passage(t, downstream.Limits{HandshakeTimeout: briefly})
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	hello := helloFor(t, "a.pass.test")
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, conn)
		close(ended)
	}()
	began := time.Now()
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for _, b := range hello {
		select {
		case <-ended:
			if took := time.Since(began); took > soon {
				t.Errorf("the connection lasted %s", took)
			}
			if got := origin.Bytes(); got != "" {
				t.Errorf("the origin got %q", got)
			}
			return
		case <-pace.C:
			_, _ = conn.Write([]byte{b})
		}
	}
	t.Error("the whole hello was waited for")
}

// TestLargeClientHello: a hello of unusual but reasonable size passes, byte for byte.
func TestLargeClientHello(t *testing.T) {
	t.Parallel()
	address, origin := passage(t, downstream.Limits{})
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{ServerName: "a.pass.test", InsecureSkipVerify: true}
	for i := range 1000 { // 20 KB of protocol names
		conf.NextProtos = append(conf.NextProtos, strings.Repeat("x", 16)+string(rune('a'+i%26)))
	}
	var sent bytes.Buffer
	go func() {
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		_ = tls.Client(&keeping{Conn: conn, sent: &sent}, conf).Handshake()
		conn.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.ReadAll(conn) // to the origin's end, which comes after ours
	conn.Close()
	if got := origin.Bytes(); got != sent.String() || len(got) < 16<<10 {
		t.Errorf("the origin got %d bytes, sent were %d", len(got), sent.Len())
	}
}

// keeping keeps what is written.
type keeping struct {
	net.Conn
	sent *bytes.Buffer
}

func (k *keeping) Write(p []byte) (int, error) {
	k.sent.Write(p)
	return k.Conn.Write(p)
}

// TestUDPFlood: clients beyond the bound, forged ones say, cost neither memory without bound nor the sessions that there are.
func TestUDPFlood(t *testing.T) {
	t.Parallel()
	origin := harness.NewUDPOrigin(t, "origin")
	cluster := origin.Cluster("c")
	g := harness.NewGateway(t, harness.GatewayOptions{Limits: downstream.Limits{MaxSessions: 50, SessionIdleTimeout: time.Minute}})
	port, _ := g.ApplyOnFreePort(func(port uint16) *config.Config {
		return harness.Config([]*config.Listener{harness.FlowListener(config.UDP, "udp", "", port, harness.FlowRoute("r", nil, harness.To(cluster)...))}, cluster)
	})
	dial := func() net.Conn {
		c, err := net.Dial("udp", harness.Address(port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	answered := func(c net.Conn, within time.Duration) bool {
		room := make([]byte, 1<<10)
		for end := time.Now().Add(within); time.Now().Before(end); {
			_, _ = c.Write([]byte("x"))
			_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			if n, err := c.Read(room); err == nil && string(room[:n]) == "origin x" {
				return true
			}
		}
		return false
	}
	first := dial()
	if !answered(first, harness.Patience) {
		t.Fatal("no answer")
	}
	var served int
	flood := make([]net.Conn, 300)
	for i := range flood {
		flood[i] = dial()
		for range 20 {
			_, _ = flood[i].Write([]byte("flood"))
		}
	}
	for _, c := range flood {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := c.Read(make([]byte, 100)); err == nil {
			served++
		}
	}
	if served > 49 {
		t.Errorf("%d more clients were served, want 49 at most", served)
	}
	if !answered(first, harness.Patience) {
		t.Error("the first session is gone")
	}
}
