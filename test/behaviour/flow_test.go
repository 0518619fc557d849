package behaviour

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/downstream"
	"gatehouse.dev/gatehouse/gateway/telemetry"
	"gatehouse.dev/gatehouse/test/harness"
)

func dialTCP(t testing.TB, address string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(harness.Patience))
	return c.(*net.TCPConn)
}

// greeting reads the line that an endpoint says first: its name.
func greeting(t testing.TB, c net.Conn) string {
	t.Helper()
	line, err := bufio.NewReader(io.LimitReader(c, 64)).ReadString('\n')
	if err != nil {
		t.Fatalf("no greeting: %q, %v", line, err)
	}
	return strings.TrimSuffix(line, "\n")
}

// echoed sends text and wants it back.
func echoed(t testing.TB, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("got %q, %v, want %q", got, err, text)
	}
}

// turnedAway wants the connection ended without a byte.
func turnedAway(t testing.TB, c net.Conn) {
	t.Helper()
	got, err := io.ReadAll(c)
	if len(got) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %q, %v, want a closed connection", got, err)
	}
}

// flowBed is a gateway with listeners for flows on one port.
func flowBed(t testing.TB, opt harness.GatewayOptions, build func(port uint16) *config.Config) (*harness.Gateway, string, *config.Config) {
	t.Helper()
	g := harness.NewGateway(t, opt)
	port, cfg := g.ApplyOnFreePort(build)
	return g, harness.Address(port), cfg
}

func tcpConfig(port uint16, route *config.StreamRoute, clusters ...*config.Cluster) *config.Config {
	return harness.Config([]*config.Listener{harness.FlowListener(config.TCP, "tcp", "", port, route)}, clusters...)
}

func TestTCP(t *testing.T) {
	origin := harness.NewRawOrigin(t, harness.Named("one")).Cluster("one")
	_, address, _ := flowBed(t, harness.GatewayOptions{}, func(port uint16) *config.Config {
		return tcpConfig(port, harness.FlowRoute("r", nil, harness.To(origin)...), origin)
	})
	c := dialTCP(t, address)
	if got := greeting(t, c); got != "one" {
		t.Errorf("got %q", got)
	}
	echoed(t, c, "hello")
	// What is sent after the other side ended still arrives, and what was under way when this side ended too.
	big := pattern(8 << 20)
	go func() {
		_, _ = c.Write(big)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil {
		t.Error(err)
	}
	wantBytes(t, "echo", got, big)
}

func TestTCPHalfCloseOfTheEndpoint(t *testing.T) {
	received := make(chan string, 1)
	origin := harness.NewRawOrigin(t, func(c net.Conn) {
		_ = c.(*net.TCPConn).CloseWrite()
		got, _ := io.ReadAll(c)
		received <- string(got)
	}).Cluster("one")
	_, address, _ := flowBed(t, harness.GatewayOptions{}, func(port uint16) *config.Config {
		return tcpConfig(port, harness.FlowRoute("r", nil, harness.To(origin)...), origin)
	})
	c := dialTCP(t, address)
	if got, err := io.ReadAll(c); err != nil || len(got) > 0 {
		t.Fatalf("got %q, %v", got, err)
	}
	if _, err := io.WriteString(c, "after the end"); err != nil {
		t.Fatal(err)
	}
	_ = c.CloseWrite()
	if got := next(t, "what the endpoint got", received); got != "after the end" {
		t.Errorf("the endpoint got %q", got)
	}
}

// An endpoint that has answered and closed takes nothing more; the client still gets the whole answer, whatever it goes on sending.
func TestTCPAnswerBeforeTheEnd(t *testing.T) {
	answer := pattern(30 << 10) // small enough to be on its way when the endpoint closes: who closes with bytes unread loses what it sent
	closed := make(chan struct{})
	origin := harness.NewRawOrigin(t, func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, 5)); err == nil {
			_, _ = c.Write(answer)
		}
		c.Close()
		closed <- struct{}{}
	}).Cluster("one")
	_, address, _ := flowBed(t, harness.GatewayOptions{}, func(port uint16) *config.Config {
		return tcpConfig(port, harness.FlowRoute("r", nil, harness.To(origin)...), origin)
	})
	for range 20 {
		c := dialTCP(t, address)
		if _, err := io.WriteString(c, "hello"); err != nil {
			t.Fatal(err)
		}
		wait(t, "the endpoint's end", closed)
		for range 100 {
			if _, err := c.Write(make([]byte, 1<<10)); err != nil {
				t.Fatal(err)
			}
		}
		got, err := io.ReadAll(c)
		if err != nil {
			t.Fatalf("after %d bytes: %v", len(got), err)
		}
		wantBytes(t, "the answer", got, answer)
		c.Close()
	}
}

func TestTCPWeights(t *testing.T) {
	seven, three, none := harness.NewRawOrigin(t, harness.Named("seven")), harness.NewRawOrigin(t, harness.Named("three")), harness.NewRawOrigin(t, harness.Named("none"))
	clusters := []*config.Cluster{none.Cluster("none"), seven.Cluster("seven"), three.Cluster("three")}
	_, address, _ := flowBed(t, harness.GatewayOptions{}, func(port uint16) *config.Config {
		return tcpConfig(port, harness.FlowRoute("r", nil,
			config.Backend{Cluster: clusters[0].Name, Weight: 0}, config.Backend{Cluster: clusters[1].Name, Weight: 7},
			config.Backend{Cluster: clusters[2].Name, Weight: 3}), clusters...)
	})
	got := map[string]int{}
	for range 300 {
		c := dialTCP(t, address)
		got[greeting(t, c)]++
		c.Close()
	}
	if got["none"] > 0 || got["seven"] < 170 || got["three"] < 50 { // the chance of fewer is below 1e-5
		t.Errorf("got %v, want 7:3", got)
	}
}

// A connection that cannot be served is closed without a byte, and the others go on.
func TestFlowsThatCannotBeServed(t *testing.T) {
	closed := harness.Cluster("closed", harness.UpH1, harness.ClosedAddress(t))
	empty := harness.Cluster("empty", harness.UpH1)
	stranger := harness.NewRawOrigin(t, harness.Named("stranger"), "stranger.test").Cluster("stranger")
	stranger.TLS = &config.UpstreamTLS{ServerName: "friend.test", CAs: harness.CAPEM()}
	for name, tc := range map[string]struct {
		route *config.StreamRoute
		flag  string
	}{
		"no route":        {nil, "no_route"},
		"no backend":      {harness.FlowRoute("r", nil), "no_backends"},
		"weight 0":        {harness.FlowRoute("r", nil, config.Backend{Cluster: empty.Name}), "no_backends"},
		"invalid backend": {harness.FlowRoute("r", nil, config.Backend{Invalid: "BackendNotFound", Weight: 1}), "invalid_backend"},
		"no endpoint":     {harness.FlowRoute("r", nil, harness.To(empty)...), "no_endpoints"},
		"nobody there":    {harness.FlowRoute("r", nil, harness.To(closed)...), "upstream_connect"},
		"not who it was":  {harness.FlowRoute("r", nil, harness.To(stranger)...), "upstream_tls"},
	} {
		for _, protocol := range []config.Protocol{config.TCP, config.TLS} {
			if tc.flag == "upstream_tls" && protocol == config.TLS {
				continue // what is passed on is not encrypted again
			}
			t.Run(name+" "+string(protocol), func(t *testing.T) {
				seen := newFlowLog(t)
				_, address, _ := flowBed(t, harness.GatewayOptions{Telemetry: seen.telemetry}, func(port uint16) *config.Config {
					l := harness.FlowListener(protocol, "l", "", port)
					if tc.route != nil {
						l.Streams = append(l.Streams, tc.route)
					}
					return harness.Config([]*config.Listener{l}, closed, empty, stranger)
				})
				c := dialTCP(t, address)
				if protocol == config.TLS {
					if err := tls.Client(c, harness.ClientTLS("a.test")).Handshake(); err == nil {
						t.Error("the handshake succeeded")
					}
				} else {
					turnedAway(t, c)
				}
				line := seen.line(t)
				if line["flag"] != tc.flag || line["msg"] != "stream" || line["protocol"] != string(protocol) || line["bytes_out"] != 0.0 {
					t.Errorf("got the line %v, want flag %s", line, tc.flag)
				}
			})
		}
	}
}

// flowLog is the access log of a gateway under test.
type flowLog struct {
	telemetry *telemetry.Telemetry
	lines     chan map[string]any
}

func newFlowLog(t testing.TB) *flowLog {
	t.Helper()
	l := &flowLog{lines: make(chan map[string]any, 1000)}
	var err error
	if l.telemetry, err = telemetry.New(t.Context(), telemetry.Options{AccessLogWriter: l}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.telemetry.Shutdown(context.Background()) })
	return l
}

// Write takes whole lines.
func (l *flowLog) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			return 0, err
		}
		l.lines <- fields
	}
	return len(p), nil
}

// next returns what comes.
func next[T any](t testing.TB, what string, from <-chan T) (value T) {
	t.Helper()
	select {
	case value = <-from:
	case <-time.After(harness.Patience):
		t.Fatalf("%s did not come within %v", what, harness.Patience)
	}
	return value
}

func (l *flowLog) line(t testing.TB) map[string]any {
	t.Helper()
	return next(t, "a line in the access log", l.lines)
}

func TestFlowIsRecorded(t *testing.T) {
	origin := harness.NewRawOrigin(t, harness.Named("one"), "a.test")
	cluster := origin.Cluster("one")
	seen := newFlowLog(t)
	_, address, _ := flowBed(t, harness.GatewayOptions{Telemetry: seen.telemetry}, func(port uint16) *config.Config {
		return harness.Config([]*config.Listener{harness.FlowListener(config.TLS, "pass", "*.test", port,
			harness.FlowRoute("r", []string{"a.test"}, harness.To(cluster)...))}, cluster)
	})
	c, err := tls.Dial("tcp", address, harness.ClientTLS("a.test"))
	if err != nil {
		t.Fatal(err)
	}
	greeting(t, c)
	echoed(t, c, "hello")
	_ = c.CloseWrite()
	_, _ = io.ReadAll(c) // who closes with bytes unread resets the connection
	c.Close()
	line := seen.line(t)
	for key, want := range map[string]any{
		"msg": "stream", "flag": "-", "protocol": "TLS", "listener": "test/gw/pass", "server_name": "a.test", "route": "TLSRoute/test/r", "rule": "0",
		"cluster": cluster.Name, "endpoint": origin.Addr.String(), "attempts": 1.0, "bind": address, "client": c.LocalAddr().String(),
	} {
		if line[key] != want {
			t.Errorf("%s is %v (%v), want %v", key, line[key], line["detail"], want)
		}
	}
	if in, _ := line["bytes_in"].(float64); in < 500 {
		t.Errorf("%v bytes came in", in)
	}
	samples := scrape(t, seen.telemetry.Handler())
	for _, want := range []string{
		`gatehouse_streams_total{cluster="Service/test/one/80",listener="test/gw/pass",protocol="TLS",result="success",route="TLSRoute/test/r",rule="0"} 1`,
		`gatehouse_streams_active{cluster="Service/test/one/80",listener="test/gw/pass",protocol="TLS",route="TLSRoute/test/r",rule="0"} 0`,
		`gatehouse_upstream_attempts_total{cluster="Service/test/one/80"} 1`,
		`gatehouse_upstream_connections{cluster="Service/test/one/80"} 0`,
	} {
		if !strings.Contains(samples, want+"\n") {
			t.Errorf("there is no sample %s", want)
		}
	}
}

// Clients of a listener that opens TLS are held to its rules, also when these change after the handshake.
func TestFlowClientValidation(t *testing.T) {
	ours, other := harness.NewAuthority(t), harness.NewAuthority(t)
	good, foreign := ours.Client(t, "good"), other.Client(t, "foreign")
	cert := harness.NewCertificate(t, "front", "a.test")
	origin := harness.NewRawOrigin(t, harness.Named("one"))
	cluster := origin.Cluster("one")
	for name, tc := range map[string]struct {
		lax    bool
		cert   *tls.Certificate
		served bool
	}{
		"good": {false, &good, true}, "foreign": {false, &foreign, false}, "none": {false, nil, false},
		"lax, foreign": {true, &foreign, true}, "lax, none": {true, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			_, address, _ := flowBed(t, harness.GatewayOptions{}, func(port uint16) *config.Config {
				l := harness.Terminating(harness.FlowListener(config.TLS, "l", "", port, harness.FlowRoute("r", nil, harness.To(cluster)...)), cert)
				l.TLS.ClientValidation = &config.ClientValidation{CAs: ours.PEM(), AllowInsecureFallback: tc.lax}
				return &config.Config{Listeners: []*config.Listener{l}, Clusters: []*config.Cluster{cluster}, Certificates: []*config.Certificate{cert}}
			})
			before := origin.Count()
			c := tls.Client(dialTCP(t, address), as("a.test", tc.cert))
			if tc.served {
				if got := greeting(t, c); got != "one" {
					t.Errorf("got %q", got)
				}
				return
			}
			if got, err := io.ReadAll(c); err == nil || len(got) > 0 || origin.Count() > before {
				t.Errorf("got %q, %v; the endpoint has %d connections more", got, err, origin.Count()-before)
			}
		})
	}
}

// Bytes are counted once, whichever way they take: from socket to socket, through TLS on either side, little or much.
func TestFlowBytes(t *testing.T) {
	cert := harness.NewCertificate(t, "front", "a.test")
	plain, secure := harness.NewRawOrigin(t, harness.Named("plain")).Cluster("plain"), harness.NewRawOrigin(t, harness.Named("secure"), "inner.test").Cluster("secure")
	secure.TLS = &config.UpstreamTLS{ServerName: "inner.test", CAs: harness.CAPEM()}
	for name, tc := range map[string]struct {
		protocol config.Protocol
		to       *config.Cluster
		size     int
	}{
		"TCP": {config.TCP, plain, 100}, "TCP, much": {config.TCP, plain, 4 << 20}, "TCP to TLS": {config.TCP, secure, 1 << 20},
		"TLS": {config.TLS, plain, 1 << 20}, "TLS to TLS": {config.TLS, secure, 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen := newFlowLog(t)
			_, address, _ := flowBed(t, harness.GatewayOptions{Telemetry: seen.telemetry}, func(port uint16) *config.Config {
				l := harness.FlowListener(tc.protocol, "l", "", port, harness.FlowRoute("r", nil, harness.To(tc.to)...))
				if tc.protocol == config.TLS {
					harness.Terminating(l, cert)
				}
				return &config.Config{Listeners: []*config.Listener{l}, Clusters: []*config.Cluster{tc.to}, Certificates: []*config.Certificate{cert}}
			})
			var c interface {
				net.Conn
				CloseWrite() error
			} = dialTCP(t, address)
			if tc.protocol == config.TLS {
				c = tls.Client(c, harness.ClientTLS("a.test"))
			}
			sent := pattern(tc.size)
			go func() {
				_, _ = c.Write(sent)
				_ = c.CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err != nil || len(got) < tc.size {
				t.Fatalf("got %d bytes, %v", len(got), err)
			}
			line := seen.line(t)
			if line["bytes_in"] != float64(tc.size) || line["bytes_out"] != float64(len(got)) || line["flag"] != "-" {
				t.Errorf("sent %d, got %d; got the line %v", tc.size, len(got), line)
			}
			samples := scrape(t, seen.telemetry.Handler())
			for metric, want := range map[string]int{"received": tc.size, "sent": len(got)} {
				sample := fmt.Sprintf(`gatehouse_stream_%s_bytes_total{cluster="%s",listener="test/gw/l",protocol="%s",route="TLSRoute/test/r",rule="0"} `, metric, tc.to.Name, tc.protocol)
				_, value, _ := strings.Cut(samples, sample)
				value, _, _ = strings.Cut(value, "\n")
				if n, err := strconv.ParseFloat(value, 64); err != nil || n != float64(want) {
					t.Errorf("%s is %q, want %d", metric, value, want)
				}
			}
		})
	}
}

func scrape(t testing.TB, h http.Handler) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	go server.Serve(ln)
	defer server.Close()
	resp, err := http.Get("http://" + ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// A port with everything that goes over TLS: two names passed through, one opened for streams, one opened and encrypted again, one for HTTPS.
func tlsHouse(t *testing.T) (g *harness.Gateway, address string, cfg *config.Config) {
	t.Helper()
	pass, wild := harness.NewRawOrigin(t, harness.Named("pass"), "pass.test").Cluster("pass"), harness.NewRawOrigin(t, harness.Named("wild"), "*.pass.test").Cluster("wild")
	opened, again := harness.NewRawOrigin(t, harness.Named("opened")).Cluster("opened"), harness.NewRawOrigin(t, harness.Named("again"), "inner.test").Cluster("again")
	again.TLS = &config.UpstreamTLS{ServerName: "inner.test", CAs: harness.CAPEM()}
	pass.TLS = &config.UpstreamTLS{ServerName: "pass.test", CAs: harness.CAPEM()} // not for what is TLS already
	cert := harness.NewCertificate(t, "front", "opened.test", "again.test", "web.test")
	return flowBed(t, harness.GatewayOptions{}, func(port uint16) *config.Config {
		web, webCluster := named(t, "web", "web.test", port, cert)
		listeners := []*config.Listener{
			harness.Terminating(harness.FlowListener(config.TLS, "again", "again.test", port, harness.FlowRoute("again", nil, harness.To(again)...)), cert),
			harness.Terminating(harness.FlowListener(config.TLS, "opened", "opened.test", port, harness.FlowRoute("opened", []string{"opened.test"}, harness.To(opened)...)), cert),
			harness.FlowListener(config.TLS, "pass", "", port,
				harness.FlowRoute("older", []string{"*.test"}, harness.To(opened)...), // less specific than each of the next
				harness.FlowRoute("pass", []string{"pass.test"}, harness.To(pass)...),
				harness.FlowRoute("wild", []string{"*.pass.test"}, harness.To(wild)...),
				harness.FlowRoute("late", []string{"pass.test"}, harness.To(opened)...)), // has the same name as an earlier one
			web,
		}
		return &config.Config{Listeners: listeners, Clusters: []*config.Cluster{again, opened, pass, webCluster, wild}, Certificates: []*config.Certificate{cert}}
	})
}

func TestTLSByServerName(t *testing.T) {
	_, address, _ := tlsHouse(t)
	for name, tc := range map[string]struct{ sni, greeting, certificate string }{
		"passed through":              {"pass.test", "pass", "pass.test"},
		"passed through by wildcard":  {"x.pass.test", "wild", "*.pass.test"},
		"upper case":                  {"PASS.test", "pass", "pass.test"},
		"opened":                      {"opened.test", "opened", "opened.test"},
		"opened, and encrypted again": {"again.test", "again", "opened.test"},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				conf := harness.ClientTLS(tc.sni)
				conf.MinVersion, conf.MaxVersion, conf.NextProtos = version, version, []string{"custom/1"}
				c := tls.Client(dialTCP(t, address), conf)
				if err := c.Handshake(); err != nil {
					t.Fatal(err)
				}
				if got := c.ConnectionState().PeerCertificates[0].DNSNames[0]; got != tc.certificate {
					t.Errorf("got the certificate of %s, want %s", got, tc.certificate)
				}
				if got := greeting(t, c); got != tc.greeting {
					t.Errorf("reached %q, want %q", got, tc.greeting)
				}
				echoed(t, c, strings.Repeat("over and over ", 10_000)[:100_000])
				_ = c.CloseWrite()
				if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
					t.Errorf("got %q, %v at the end", rest, err)
				}
			})
		}
	}
	t.Run("https beside", func(t *testing.T) {
		for _, d := range []harness.Down{harness.H1TLS, harness.H2, harness.H3} {
			client := harness.NewClient(t, d, harness.ClientOptions{Address: address, Host: "web.test", TLS: harness.ClientTLS("web.test")})
			if r := harness.MustDo(t, client, harness.Request{Authority: "web.test"}); r.Status != 200 || string(r.Body) != "web" {
				t.Errorf("%s: got %d %q", d, r.Status, r.Body)
			}
			// A name of another listener on the port is not this connection's.
			for _, host := range []string{"pass.test", "opened.test"} {
				if r := harness.MustDo(t, client, harness.Request{Authority: host}); r.Status != 421 {
					t.Errorf("%s: got %d for the host %s", d, r.Status, host)
				}
			}
		}
	})
	t.Run("no server name", func(t *testing.T) {
		conf := harness.ClientTLS("")
		conf.InsecureSkipVerify = true
		if err := tls.Client(dialTCP(t, address), conf).Handshake(); err == nil {
			t.Error("a client without a server name was served")
		}
	})
	t.Run("no such route", func(t *testing.T) {
		c := dialTCP(t, address)
		if err := tls.Client(c, harness.ClientTLS("nobody.example")).Handshake(); err == nil {
			t.Error("a name that no route has was served")
		}
	})
	t.Run("not TLS", func(t *testing.T) {
		c := dialTCP(t, address)
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: pass.test\r\n\r\n")
		got, _ := io.ReadAll(c)
		if len(got) > 7 { // an alert at most
			t.Errorf("got %q", got)
		}
	})
}

// A ClientHello arrives in as many segments and records as the client likes.
func TestPassthroughOfAnyClientHello(t *testing.T) {
	_, address, _ := tlsHouse(t)
	for name, cut := range map[string]func(hello []byte) [][]byte{
		"byte by byte": func(hello []byte) (parts [][]byte) {
			for i := range hello {
				parts = append(parts, hello[i:i+1])
			}
			return parts
		},
		"a record for each byte": func(hello []byte) (parts [][]byte) {
			for _, b := range hello[5:] {
				parts = append(parts, []byte{hello[0], hello[1], hello[2], 0, 1, b})
			}
			return parts
		},
		"two records in one segment": func(hello []byte) [][]byte {
			body, half := hello[5:], (len(hello)-5)/2
			record := func(p []byte) []byte {
				return append([]byte{hello[0], hello[1], hello[2], byte(len(p) >> 8), byte(len(p))}, p...)
			}
			return [][]byte{append(record(body[:half]), record(body[half:])...)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			raw := dialTCP(t, address)
			_ = raw.SetNoDelay(true)
			conf := harness.ClientTLS("pass.test")
			conf.MinVersion = tls.VersionTLS13 // the endpoint's transcript is of the messages, not of the records
			c := tls.Client(&recutter{TCPConn: raw, cut: cut}, conf)
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			if got := greeting(t, c); got != "pass" {
				t.Errorf("reached %q", got)
			}
		})
	}
}

// recutter cuts the first write.
type recutter struct {
	*net.TCPConn
	cut  func([]byte) [][]byte
	once sync.Once
}

func (r *recutter) Write(p []byte) (n int, err error) {
	first := false
	r.once.Do(func() { first = true })
	if !first {
		return r.TCPConn.Write(p)
	}
	for _, part := range r.cut(p) {
		if _, err := r.TCPConn.Write(part); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// A passthrough listener comes to a port with HTTPS, and goes, without the socket or a connection noticing.
func TestPassthroughComesAndGoes(t *testing.T) {
	t.Parallel()
	pass := harness.NewRawOrigin(t, harness.Named("pass"), "pass.test").Cluster("pass")
	cert := harness.NewCertificate(t, "front", "web.test")
	var web *config.Listener
	var webCluster *config.Cluster
	var port uint16
	g, address, before := flowBed(t, harness.GatewayOptions{DrainTime: 50 * time.Millisecond}, func(p uint16) *config.Config {
		port = p
		web, webCluster = named(t, "web", "web.test", port, cert)
		return &config.Config{Listeners: []*config.Listener{web}, Clusters: []*config.Cluster{webCluster}, Certificates: []*config.Certificate{cert}}
	})
	client := harness.NewClient(t, harness.H2, harness.ClientOptions{Address: address, Host: "web.test", TLS: harness.ClientTLS("web.test")})
	get := func() {
		t.Helper()
		if r := harness.MustDo(t, client, harness.Request{Authority: "web.test"}); r.Status != 200 {
			t.Fatalf("got %d", r.Status)
		}
	}
	dial := func() (*tls.Conn, error) {
		c := tls.Client(dialTCP(t, address), harness.ClientTLS("pass.test"))
		return c, c.Handshake()
	}
	get()
	if _, err := dial(); err == nil {
		t.Error("a name without a listener was served")
	}
	both := &config.Config{
		Listeners: []*config.Listener{harness.FlowListener(config.TLS, "pass", "pass.test", port, harness.FlowRoute("r", nil, harness.To(pass)...)), web},
		Clusters:  []*config.Cluster{pass, webCluster}, Certificates: []*config.Certificate{cert},
	}
	g.Apply(both)
	c, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	greeting(t, c)
	get()

	// A route that changes does not cut what is under way.
	moved := *both.Listeners[0]
	moved.Streams = nil
	g.Apply(&config.Config{Listeners: []*config.Listener{&moved, web}, Clusters: []*config.Cluster{webCluster}, Certificates: both.Certificates})
	echoed(t, c, "still there")
	if _, err := dial(); err == nil {
		t.Error("a listener without routes served a new connection")
	}

	// A listener that goes gives the drain time, though the socket stays.
	g.Apply(before)
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		t.Errorf("got %q, %v, want the connection cut after the drain time", rest, err)
	}
	get()
}

// When the socket goes too, connections have the drain time.
func TestTCPDrain(t *testing.T) {
	t.Parallel()
	origin := harness.NewRawOrigin(t, harness.Named("one")).Cluster("one")
	g, address, _ := flowBed(t, harness.GatewayOptions{DrainTime: 300 * time.Millisecond}, func(port uint16) *config.Config {
		return tcpConfig(port, harness.FlowRoute("r", nil, harness.To(origin)...), origin)
	})
	c := dialTCP(t, address)
	greeting(t, c)
	g.Apply(&config.Config{})
	echoed(t, c, "goes on")
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("the address still takes connections")
	}
	began := time.Now()
	turnedAway(t, c)
	if took := time.Since(began); took > harness.Patience/2 {
		t.Errorf("cut after %s", took)
	}
}

func TestTCPIdle(t *testing.T) {
	t.Parallel()
	origin := harness.NewRawOrigin(t, harness.Named("one")).Cluster("one")
	seen := newFlowLog(t)
	_, address, _ := flowBed(t, harness.GatewayOptions{
		Limits: downstream.Limits{StreamIdleTimeout: 200 * time.Millisecond}, Telemetry: seen.telemetry,
	}, func(port uint16) *config.Config {
		return tcpConfig(port, harness.FlowRoute("r", nil, harness.To(origin)...), origin)
	})
	c := dialTCP(t, address)
	greeting(t, c)
	turnedAway(t, c)
	if line := seen.line(t); line["flag"] != "client_timeout" {
		t.Errorf("got the line %v", line)
	}
}

// An endpoint that is gone is passed over; one that goes in the middle ends the connection.
func TestTCPEndpointsGo(t *testing.T) {
	origin := harness.NewRawOrigin(t, harness.Named("one"))
	cluster := origin.Cluster("one")
	cluster.Endpoints = append(cluster.Endpoints, harness.ClosedAddress(t), harness.ClosedAddress(t))
	_, address, _ := flowBed(t, harness.GatewayOptions{}, func(port uint16) *config.Config {
		return tcpConfig(port, harness.FlowRoute("r", nil, harness.To(cluster)...), cluster)
	})
	for range 20 {
		c := dialTCP(t, address)
		if got := greeting(t, c); got != "one" {
			t.Errorf("got %q", got)
		}
		c.Close()
	}
	c := dialTCP(t, address)
	greeting(t, c)
	origin.Close()
	turnedAway(t, c)
}
