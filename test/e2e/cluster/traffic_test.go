package cluster

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// visitor sends requests from outside the cluster to an address, whatever host they name.
type visitor struct {
	client  *http.Client
	address netip.Addr
}

// visit returns a visitor. With keepAlive it uses connections again, without it every request has its own.
func visit(address netip.Addr, keepAlive bool) *visitor {
	return &visitor{address: address, client: &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: !keepAlive,
			DialContext: func(ctx context.Context, network, hostPort string) (net.Conn, error) {
				_, port, err := net.SplitHostPort(hostPort)
				if err != nil {
					return nil, err
				}
				return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(address.String(), port))
			},
		},
	}}
}

// get asks for a URL, such as "http://example.com/x".
func (v *visitor) get(ctx context.Context, url string) (status int, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	response, err := v.client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// answers waits until a URL answers with a status, and returns how long that took and the body.
func (v *visitor) answers(t *testing.T, url string, status int) (time.Duration, string) {
	t.Helper()
	var body string
	took := until(t, func(ctx context.Context) error {
		got, text, err := v.get(ctx, url)
		if err == nil && got != status {
			err = fmt.Errorf("%s answers %d %q, want %d", url, got, text, status)
		}
		body = text
		return err
	})
	return took, body
}

// certificate returns the common name of the certificate that port 443 presents for a server name.
func (v *visitor) certificate(ctx context.Context, serverName string) (string, error) {
	// The certificates are self-signed: which one it is is all that is asked.
	dialer := &tls.Dialer{Config: &tls.Config{ServerName: serverName, InsecureSkipVerify: true}}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(v.address.String(), "443"))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

// stream is requests, one after another, until it is stopped.
type stream struct {
	stopping chan struct{}
	done     sync.WaitGroup
	mu       sync.Mutex
	sent     int           // guarded by mu
	slowest  time.Duration // guarded by mu
	failures []string      // guarded by mu
}

// send starts a stream of requests for a URL, each at the earliest every so long after the one before. Whatever is not a 200 is a failure.
func (v *visitor) send(t *testing.T, url string, every time.Duration) *stream {
	s := &stream{stopping: make(chan struct{})}
	began := time.Now()
	ctx := context.WithoutCancel(t.Context())
	s.done.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-s.stopping:
				return
			case <-ticker.C:
			}
			at := time.Now()
			status, body, err := v.get(ctx, url)
			if err == nil && status != http.StatusOK {
				err = fmt.Errorf("%d %s", status, body)
			}
			s.mu.Lock()
			s.sent++
			s.slowest = max(s.slowest, time.Since(at))
			if err != nil {
				s.failures = append(s.failures, fmt.Sprintf("after %.2fs: %v", at.Sub(began).Seconds(), err))
			}
			s.mu.Unlock()
		}
	})
	t.Cleanup(func() { s.stop() })
	return s
}

// stop ends the stream and returns what became of it.
func (s *stream) stop() (sent int, slowest time.Duration, failures []string) {
	s.mu.Lock()
	select {
	case <-s.stopping:
	default:
		close(s.stopping)
	}
	s.mu.Unlock()
	s.done.Wait()
	return s.sent, s.slowest, s.failures
}

// flawless ends streams and fails the test if a request of them failed.
func flawless(t *testing.T, streams map[string]*stream) {
	t.Helper()
	for name, s := range streams {
		sent, slowest, failures := s.stop()
		t.Logf("%s: %d requests, %d failures, slowest %s", name, sent, len(failures), slowest.Round(time.Millisecond))
		if len(failures) > 0 {
			t.Errorf("%s: %d of %d requests failed: %q", name, len(failures), sent, failures[:min(len(failures), 5)])
		}
		if sent < 50 {
			t.Errorf("%s: only %d requests were sent", name, sent)
		}
	}
}
