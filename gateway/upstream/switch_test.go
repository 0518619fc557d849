package upstream

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// The key and answer of RFC 6455 1.3.
const rfcKey, rfcAccept = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

// upgrading is an HTTP/1.1 endpoint: it switches, answering the key with accept (nil: correctly), and echoes until the end.
func upgrading(t *testing.T, protocol string, accept func(key string) string, seen chan<- http.Header) netip.AddrPort {
	return scripted(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		seen <- r.Header
		if r.Method != http.MethodGet || r.Host != "www.example.com" || r.RequestURI != "/chat?a=1" {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol+
			"\r\nSec-WebSocket-Accept: "+accept(r.Header.Get(keyField))+"\r\nX-From: endpoint\r\n\r\n")
		_, _ = io.Copy(c, in)
	})
}

// connecting is an HTTP/2 endpoint that takes extended CONNECT and echoes.
func connecting(t *testing.T, status int, seen chan<- http.Header) netip.AddrPort {
	return newOrigin(t, originOptions{protocols: h2c}, func(w http.ResponseWriter, r *http.Request) {
		header := r.Header.Clone()
		header.Set("X-Method", r.Method)
		header.Set("X-Target", r.URL.RequestURI())
		seen <- header
		w.Header().Set("X-From", "endpoint")
		w.WriteHeader(status)
		if status/100 != 2 {
			_, _ = io.WriteString(w, "refused")
			return
		}
		_ = http.NewResponseController(w).Flush()
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			if n > 0 {
				_, _ = w.Write(buf[:n])
				_ = http.NewResponseController(w).Flush()
			}
			if err != nil {
				return
			}
		}
	}).addr
}

func switchHead(t *testing.T, method, protocol string, fields ...string) *exchange.Head {
	t.Helper()
	h := request(t, method, "/chat?a=1", fields...)
	h.Protocol = protocol
	return h
}

// echo sends through a tunnel, gets the same back, and ends it half by half.
func echo(t *testing.T, s exchange.Stream) {
	t.Helper()
	if _, err := s.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4)
	if _, err := io.ReadFull(s, buf); err != nil || string(buf) != "ping" {
		t.Fatalf("read %q, %v", buf, err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(s); err != nil || len(rest) > 0 {
		t.Errorf("after the end: %q, %v", rest, err)
	}
	_ = s.Close()
}

// TestSwitchTranslations is the four shapes of a WebSocket: Upgrade or extended CONNECT on either side.
func TestSwitchTranslations(t *testing.T) {
	tests := map[string]struct {
		head       func(t *testing.T) *exchange.Head
		protocol   config.UpstreamProtocol
		wantAccept string // what the client is answered
		check      func(t *testing.T, seen http.Header)
	}{
		"Upgrade to Upgrade": {
			head:       func(t *testing.T) *exchange.Head { return switchHead(t, "GET", "websocket", keyField, rfcKey) },
			protocol:   config.UpstreamHTTP1,
			wantAccept: rfcAccept,
			check: func(t *testing.T, seen http.Header) {
				if seen.Get(keyField) != rfcKey {
					t.Errorf("the client's key became %q", seen.Get(keyField))
				}
			},
		},
		"CONNECT to Upgrade": {
			head:     func(t *testing.T) *exchange.Head { return switchHead(t, "CONNECT", "websocket") },
			protocol: config.UpstreamHTTP1,
			check: func(t *testing.T, seen http.Header) {
				if len(seen.Get(keyField)) != 24 || seen.Get("Upgrade") != "websocket" || seen.Get("Connection") != "Upgrade" {
					t.Errorf("handshake %v", seen)
				}
			},
		},
		"Upgrade to CONNECT": {
			head:       func(t *testing.T) *exchange.Head { return switchHead(t, "GET", "websocket", keyField, rfcKey) },
			protocol:   config.UpstreamH2C,
			wantAccept: rfcAccept,
			check: func(t *testing.T, seen http.Header) {
				if seen.Get(keyField) != "" || seen.Get("X-Method") != "CONNECT" || seen.Get("X-Target") != "/chat?a=1" || seen[":protocol"] == nil {
					t.Errorf("request %v", seen)
				}
			},
		},
		"CONNECT to CONNECT": {
			head:     func(t *testing.T) *exchange.Head { return switchHead(t, "CONNECT", "websocket") },
			protocol: config.UpstreamH2C,
			check:    func(*testing.T, http.Header) {},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			seen := make(chan http.Header, 1)
			var addr netip.AddrPort
			if tt.protocol == config.UpstreamH2C {
				addr = connecting(t, http.StatusOK, seen)
			} else {
				addr = upgrading(t, "websocket", acceptOf, seen)
			}
			conf := cluster(addr)
			conf.Protocol = tt.protocol
			a, fault := send(t.Context(), single(t, conf), &Attempt{Request: tt.head(t), Body: exchange.NoBody})
			if fault != nil {
				t.Fatal(fault)
			}
			tt.check(t, receive(t, seen, "the handshake"))
			if a.Response.Status != http.StatusSwitchingProtocols || a.Tunnel == nil {
				t.Fatalf("got %d, tunnel %v", a.Response.Status, a.Tunnel)
			}
			if got, _ := a.Response.Fields.Lookup(acceptField); got != tt.wantAccept {
				t.Errorf("the client is answered %q, want %q", got, tt.wantAccept)
			}
			if got, _ := a.Response.Fields.Lookup("X-From"); got != "endpoint" {
				t.Errorf("fields %v", a.Response.Fields)
			}
			echo(t, a.Tunnel)
		})
	}
}

// TestSwitchRefused: an endpoint may decline, and its answer is the client's.
func TestSwitchRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		protocol config.UpstreamProtocol
		method   string
	}{
		"Upgrade": {config.UpstreamHTTP1, "GET"},
		"CONNECT": {config.UpstreamH2C, "CONNECT"},
	} {
		t.Run(name, func(t *testing.T) {
			var addr netip.AddrPort
			if tt.protocol == config.UpstreamH2C {
				addr = connecting(t, http.StatusForbidden, make(chan http.Header, 1))
			} else {
				addr = newOrigin(t, originOptions{}, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "refused", http.StatusForbidden) }).addr
			}
			conf := cluster(addr)
			conf.Protocol = tt.protocol
			a, fault := send(t.Context(), single(t, conf), &Attempt{Request: switchHead(t, tt.method, "websocket"), Body: exchange.NoBody})
			if fault != nil {
				t.Fatal(fault)
			}
			if got := drain(t, a); a.Response.Status != http.StatusForbidden || a.Tunnel != nil || got[:7] != "refused" {
				t.Errorf("got %d %q", a.Response.Status, got)
			}
		})
	}
}

// TestSwitchFaults: no tunnel is opened on an endpoint's word alone.
func TestSwitchFaults(t *testing.T) {
	wrong := func(string) string { return "wrong" }
	tests := map[string]struct {
		protocol string
		accept   func(string) string
		method   string
	}{
		"another protocol": {"h2c", acceptOf, "GET"},
		"wrong accept":     {"websocket", wrong, "CONNECT"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			conf := cluster(upgrading(t, tt.protocol, tt.accept, make(chan http.Header, 1)))
			_, fault := send(t.Context(), single(t, conf), &Attempt{Request: switchHead(t, tt.method, "websocket"), Body: exchange.NoBody})
			if fault == nil || fault.Kind != exchange.UpstreamProtocol {
				t.Errorf("got %v", fault)
			}
		})
	}
	t.Run("refused connection", func(t *testing.T) {
		for _, protocol := range []config.UpstreamProtocol{config.UpstreamHTTP1, config.UpstreamH2C} {
			conf := cluster(closedPort(t))
			conf.Protocol = protocol
			_, fault := send(t.Context(), single(t, conf), &Attempt{Request: switchHead(t, "GET", "websocket"), Body: exchange.NoBody})
			if fault == nil || fault.Kind != exchange.UpstreamConnect {
				t.Errorf("%s: got %v", protocol, fault)
			}
		}
	})
}

func TestHalfCloseUnsupported(t *testing.T) {
	var s exchange.Stream = h1Tunnel{&conn{rw: struct{ net.Conn }{}}}
	if err := s.CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}

func TestAcceptOf(t *testing.T) {
	if got := acceptOf(rfcKey); got != rfcAccept {
		t.Errorf("got %s", got)
	}
}
