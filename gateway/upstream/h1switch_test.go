package upstream

import (
	"crypto/tls"
	"fmt"
	"io"
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\nX-From: endpoint\r\n\r\n"

// TestUpgradeTunnel: what follows 101, be it with it or after it, is the tunnel's, and nothing of the connection is used again.
func TestUpgradeTunnel(t *testing.T) {
	ca := newCA(t)
	server := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "b.test", "", nil)}}
	for name, tt := range map[string]struct {
		early string
		tls   bool
	}{
		"plaintext": {"", false}, "plaintext, early bytes": {"early", false}, "TLS": {"", true}, "TLS, early bytes": {"early", true},
		"many early bytes": {strings.Repeat("early", 10<<10), false},
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan string, 1)
			conf := cluster(peers(t, func(p *peer) {
				if tt.tls {
					p.Conn = tls.Server(p.Conn, server)
					p.in.Reset(p.Conn)
				}
				r, _, _ := p.request()
				if r.Header.Get("Upgrade") != "raw" || r.Header.Get("Connection") != "Upgrade" || r.ContentLength != 0 {
					t.Errorf("request %v", r)
				}
				p.say(switching + tt.early)
				line, _ := p.in.ReadString('\n')
				p.say("got " + line)
				ended <- p.gone()
			}))
			if tt.tls {
				conf.TLS = &config.UpstreamTLS{ServerName: "b.test", CAs: ca.pem}
			}
			e := first(single(t, conf))
			a := &Attempt{Request: request(t, "GET", "/"), Body: exchange.NoBody}
			a.Request.Protocol = "raw"
			if fault := e.RoundTrip(a); fault != nil {
				t.Fatal(fault)
			}
			if from, _ := a.Response.Fields.Lookup("X-From"); a.Response.Status != 101 || from != "endpoint" || a.Answer.Length() != 0 {
				t.Errorf("got %v", a.Response)
			}
			if _, err := io.WriteString(a.Tunnel, "ping\n"); err != nil {
				t.Error(err)
			}
			want := tt.early + "got ping\n"
			got := make([]byte, len(want))
			if _, err := io.ReadFull(a.Tunnel, got); err != nil || string(got) != want {
				t.Errorf("got %.100q, %v", got, err)
			}
			if _, err := io.WriteString(a.Tunnel, "the end"); err != nil {
				t.Error(err)
			}
			if err := a.Tunnel.CloseWrite(); err != nil {
				t.Error(err)
			}
			if rest := receive(t, ended, "the end of the stream"); rest != "the end" {
				t.Errorf("the endpoint got %q", rest)
			}
			if rest, err := io.ReadAll(a.Tunnel); err != nil || len(rest) > 0 {
				t.Errorf("got %q, %v", rest, err)
			}
			a.End()
			if n := e.client.h1.open.Load(); n != 0 {
				t.Errorf("%d connections are open", n)
			}
		})
	}
}

// TestTunnelEnds: a tunnel ends with its attempt's life, and by Close, from whatever goroutine.
func TestTunnelEnds(t *testing.T) {
	for name, end := range map[string]func(a *Attempt){
		"life":  func(a *Attempt) { a.Life.End(exchange.NewFault(exchange.ClientAborted, nil)) },
		"close": func(a *Attempt) { _ = a.Tunnel.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			e := first(single(t, cluster(peers(t, func(p *peer) {
				_, _, _ = p.request()
				p.say(switching + "x")
				p.gone()
			}))))
			a := &Attempt{Request: request(t, "GET", "/"), Body: exchange.NoBody}
			a.Request.Protocol = "raw"
			if fault := e.RoundTrip(a); fault != nil {
				t.Fatal(fault)
			}
			reading, read := make(chan struct{}, 1), make(chan error, 1)
			go func() {
				buf := make([]byte, 10)
				_, _ = a.Tunnel.Read(buf)
				reading <- struct{}{}
				_, err := a.Tunnel.Read(buf)
				read <- err
			}()
			receive(t, reading, "the first byte")
			end(a)
			if err := receive(t, read, "the end of the read"); err == nil || err == io.EOF {
				t.Errorf("the read ended with %v", err)
			}
			a.End()
		})
	}
}

// TestUpgradeRefusedKeepsConnection: an endpoint that declines has answered an ordinary request.
func TestUpgradeRefusedKeepsConnection(t *testing.T) {
	e := first(single(t, cluster(peers(t, func(p *peer) {
		for {
			if _, _, ok := p.request(); !ok {
				return
			}
			p.ok(fmt.Sprint("no ", p.number))
		}
	}))))
	for range 2 {
		a := &Attempt{Request: request(t, "GET", "/"), Body: exchange.NoBody}
		a.Request.Protocol = "raw"
		answer, fault := roundTrip(t.Context(), e, a)
		if fault != nil {
			t.Fatal(fault)
		}
		if got := drain(t, answer); got != "no 1" || answer.Tunnel != nil {
			t.Errorf("got %q", got)
		}
	}
}
