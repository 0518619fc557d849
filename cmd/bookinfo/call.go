package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	callTimeout = 3 * time.Second
	maxAnswer   = 1 << 20 // bytes
)

// call is one request from a service to another.
type call struct {
	url string
	// host is the Host header; "" means the URL's.
	host string
}

// newClient returns a client of its own pool that follows no redirects: a service takes the answer it asked for or none.
func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: callTimeout}).DialContext,
			MaxIdleConnsPerHost: 32,
			IdleConnTimeout:     30 * time.Second,
		},
		Timeout:       callTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// getJSON makes a call on behalf of a request and decodes the answer into v.
func getJSON(onBehalf *http.Request, client *http.Client, c call, v any) error {
	req, err := http.NewRequestWithContext(onBehalf.Context(), http.MethodGet, c.url, nil)
	if err != nil {
		return err
	}
	req.Host = c.host
	propagate(req.Header, onBehalf)
	resp, err := client.Do(req)
	if err != nil {
		return plainError(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("GET %s: %w", c.url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s answered %s", c.url, resp.Status)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("GET %s: the answer is not the JSON expected: %w", c.url, err)
	}
	return nil
}

// plainError says the cause of a failed call in fewer words than http.Client does: the page shows it to people.
func plainError(err error) error {
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
		return fmt.Errorf("no connection to %s: %w", dial.Addr, dial.Err)
	}
	if outer, ok := errors.AsType[*url.Error](err); ok && outer.Timeout() {
		return fmt.Errorf("GET %s: no answer within %s", outer.URL, callTimeout)
	}
	return err
}

// propagated are the headers that a service hands on with its own calls: the trace context (W3C and B3), the request id, and
// what routing looks at, so that a tester stays a tester behind the first service.
func propagated() []string {
	return []string{
		"Traceparent", "Tracestate", "Baggage", "B3", "X-B3-Traceid", "X-B3-Spanid", "X-B3-Parentspanid", "X-B3-Sampled", "X-B3-Flags",
		"X-Request-Id", "Cookie", userHeader,
	}
}

// propagate copies those headers of a request to a call made on its behalf. Who signed in is known by cookie; services are told
// by header.
func propagate(h http.Header, from *http.Request) {
	for _, name := range propagated() {
		if values := from.Header[name]; len(values) > 0 {
			h[name] = append([]string{}, values...)
		}
	}
	if user := userOf(from); user != "" {
		h.Set(userHeader, user)
	}
}

// userHeader tells a service who is signed in.
const userHeader = "X-User"

// userOf returns who is signed in: the header, when a service or a curl user sent it, or else the page's cookie.
func userOf(r *http.Request) string {
	if user := r.Header.Get(userHeader); user != "" {
		return user
	}
	if c, err := r.Cookie(userCookie); err == nil {
		return c.Value
	}
	return ""
}
