package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// client carries exchanges to one endpoint. It stands on net/http's Transport, tunnels over HTTP/2 apart; nothing outside this file and
// switch.go knows.
type client struct {
	dialer    *dialer
	transport *http.Transport
	scheme    string
	h2        bool // connections are HTTP/2, unless the endpoint chooses HTTP/1.1 in its TLS handshake
}

func (d *dialer) client() *client {
	c := &client{dialer: d, scheme: "http", h2: d.protocol == config.UpstreamH2C}
	protocols := new(http.Protocols)
	switch d.protocol {
	case config.UpstreamH2C:
		protocols.SetUnencryptedHTTP2(true)
	case config.UpstreamHTTP2:
		protocols.SetHTTP2(true)
		protocols.SetHTTP1(true)
		c.h2 = true
	default:
		protocols.SetHTTP1(true)
	}
	if d.tls != nil {
		c.scheme = "https"
	}
	c.transport = &http.Transport{
		DialContext:            d.dial,
		TLSClientConfig:        d.tls.Clone(),
		TLSHandshakeTimeout:    ConnectTimeout,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    MaxIdlePerEndpoint,
		IdleConnTimeout:        IdleTimeout,
		ExpectContinueTimeout:  ContinueTimeout,
		MaxResponseHeaderBytes: MaxResponseHeaderBytes,
		WriteBufferSize:        32 << 10,
		ReadBufferSize:         32 << 10,
		Protocols:              protocols,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
	}
	return c
}

// retire closes the idle connections; an HTTP/1.1 connection in use closes when its exchange ends. An HTTP/2 connection that is still
// in use then goes by IdleTimeout at the latest, because nobody asks this client again.
func (c *client) retire() { c.transport.CloseIdleConnections() }

// Attempt is one try to carry a request to an endpoint.
type Attempt struct {
	// Request is the head to send; its fields must hold nothing hop-by-hop.
	Request *exchange.Head
	// Body is read to its end or until the endpoint answers otherwise. It is not closed.
	Body exchange.Body
	// Inform gets interim responses other than 100 (Continue); it may be nil.
	Inform func(status int, fields exchange.Fields)

	sent *requestBody // what the transport reads; nil before RoundTrip
}

// Detach ends the attempt's hold on Body, so that another attempt can read it. It returns false when a Read is under way, whose bytes
// would be lost.
func (a *Attempt) Detach() bool { return a.sent == nil || a.sent.detach() }

// Answer is what came back.
type Answer struct {
	Response exchange.Response
	Body     exchange.Body
	// Tunnel is the raw stream after a protocol switch, nil otherwise; Body is then empty.
	Tunnel exchange.Stream
}

// RoundTrip carries one request to the endpoint and returns when the response head is there. The context bounds the whole attempt,
// the body of the response included. A Fault with Retryable set means that the endpoint certainly did not start on the request.
func (e *Endpoint) RoundTrip(ctx context.Context, a *Attempt) (*Answer, *exchange.Fault) {
	if a.Request.Protocol != "" {
		return e.client.switchProtocols(ctx, e.text, a)
	}
	body := &requestBody{body: a.Body}
	a.sent = body
	request := e.client.request(e.text, a, body)
	response, progress, err := e.client.roundTrip(ctx, request, a.Inform)
	if err != nil {
		return nil, fault(ctx, err, progress, body)
	}
	if response.StatusCode == http.StatusSwitchingProtocols {
		_ = response.Body.Close()
		return nil, exchange.NewFault(exchange.UpstreamProtocol, errors.New("the endpoint switched protocols without having been asked to"))
	}
	return &Answer{
		Response: exchange.Response{Status: response.StatusCode, Fields: fromHeader(response.Header)},
		Body:     &responseBody{ctx: ctx, response: response},
	}, nil
}

// progress is how far a request got, for deciding whether it may be sent again.
type progress struct {
	connected atomic.Bool
	reused    atomic.Bool
	wrote     atomic.Bool
}

func (c *client) roundTrip(ctx context.Context, request *http.Request, inform func(int, exchange.Fields)) (*http.Response, *progress, error) {
	p := &progress{}
	trace := &httptrace.ClientTrace{
		GotConn:      func(info httptrace.GotConnInfo) { p.connected.Store(true); p.reused.Store(info.Reused) },
		WroteHeaders: func() { p.wrote.Store(true) },
		Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			if inform != nil && code != http.StatusContinue {
				inform(code, fromHeader(http.Header(header)))
			}
			return nil
		},
	}
	response, err := c.transport.RoundTrip(request.WithContext(httptrace.WithClientTrace(ctx, trace)))
	return response, p, err
}

// request makes the message for net/http. Opaque carries path and query byte for byte.
func (c *client) request(addr string, a *Attempt, body *requestBody) *http.Request {
	head := a.Request
	r := &http.Request{
		Method:        head.Method,
		URL:           &url.URL{Scheme: c.scheme, Host: addr, Opaque: head.ForwardTarget()},
		Host:          head.Authority,
		Header:        c.toHeader(head.Fields),
		ContentLength: a.Body.Length(),
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
	}
	if r.ContentLength == 0 {
		r.Body = http.NoBody
		return r
	}
	r.Body = body
	if names := head.Fields.Get(exchange.Trailer); names != "" {
		r.Trailer = http.Header{}
		for name := range strings.SplitSeq(names, ",") {
			r.Trailer[http.CanonicalHeaderKey(strings.TrimSpace(name))] = nil
		}
		body.trailer = r.Trailer
	}
	return r
}

// toHeader keeps names as they are spelled. Framing and hop-by-hop fields are the transport's own.
func (c *client) toHeader(fields exchange.Fields) http.Header {
	h := make(http.Header, len(fields)+1)
	// Without an entry net/http would name itself as the user agent.
	h["User-Agent"] = nil
	for i := range fields {
		switch f := &fields[i]; f.ID {
		case exchange.Host, exchange.ContentLength, exchange.Trailer:
		case exchange.UserAgent:
			h["User-Agent"] = append(h["User-Agent"], f.Value)
		case exchange.Expect:
			h["Expect"] = []string{f.Value}
		case exchange.TE:
			if c.h2 { // in HTTP/1.1 it would have to be named in Connection
				h["Te"] = []string{f.Value}
			}
		default:
			h[f.Name] = append(h[f.Name], f.Value)
		}
	}
	return h
}

// fromHeader returns the fields by name: net/http keeps no order between names.
func fromHeader(h http.Header) exchange.Fields {
	fields := make(exchange.Fields, 0, len(h)+4)
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			fields.Add(name, value)
		}
	}
	return fields
}

// requestBody hands an exchange's body to net/http. Close is the transport's word that it stopped reading, not the end of the
// client's body.
type requestBody struct {
	body    exchange.Body
	trailer http.Header
	read    atomic.Int64
	failed  atomic.Pointer[exchange.Fault]

	mu       sync.Mutex
	reading  chan struct{} // closed when the Read under way ends; nil when there is none; guarded by mu
	detached bool          // guarded by mu
}

// detachTime is how long a retry waits for a Read under way: an endpoint may answer when it has the whole body, before the body's end
// was seen here.
const detachTime = 100 * time.Millisecond

var errDetached = errors.New("the attempt was given up")

// Read passes the client's bytes on and remembers a fault on the client's side, so that it is not blamed on the endpoint.
func (b *requestBody) Read(p []byte) (int, error) {
	if !b.begin() {
		return 0, errDetached
	}
	defer b.endRead()
	n, err := b.body.Read(p)
	b.read.Add(int64(n))
	switch {
	case err == io.EOF:
		b.copyTrailers()
	case err != nil:
		b.failed.Store(exchange.AsFault(err, exchange.ClientAborted))
	}
	return n, err
}

func (b *requestBody) begin() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.detached {
		return false
	}
	b.reading = make(chan struct{})
	return true
}

func (b *requestBody) endRead() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.reading)
	b.reading = nil
}

func (b *requestBody) detach() bool {
	b.mu.Lock()
	b.detached = true
	reading := b.reading
	b.mu.Unlock()
	if reading == nil {
		return true
	}
	timer := time.NewTimer(detachTime)
	defer timer.Stop()
	select {
	case <-reading:
		return true
	case <-timer.C:
		return false
	}
}

// copyTrailers hands on the trailers that were announced; net/http sends no others.
func (b *requestBody) copyTrailers() {
	for _, f := range b.body.Trailers() {
		key := http.CanonicalHeaderKey(f.Name)
		if _, announced := b.trailer[key]; announced {
			b.trailer[key] = append(b.trailer[key], f.Value)
		}
	}
}

// Close does nothing; the exchange owns the body.
func (b *requestBody) Close() error { return nil }

// responseBody is an endpoint's body.
type responseBody struct {
	ctx      context.Context
	response *http.Response
}

// Read maps what net/http says into Faults.
func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.response.Body.Read(p)
	if err != nil && err != io.EOF {
		kind := exchange.UpstreamReset
		if ended := context.Cause(b.ctx); ended != nil {
			err, kind = ended, exchange.ClientAborted
		}
		err = exchange.AsFault(err, kind)
	}
	return n, err
}

// Close gives up what is left.
func (b *responseBody) Close() error { return b.response.Body.Close() }

// Length is the response's content length, -1 when unknown.
func (b *responseBody) Length() int64 { return b.response.ContentLength }

// Trailers returns the response's trailers.
func (b *responseBody) Trailers() exchange.Fields { return fromHeader(b.response.Trailer) }

// fault says what went wrong with an attempt that got no response head.
func fault(ctx context.Context, err error, p *progress, body *requestBody) *exchange.Fault {
	if f := body.failed.Load(); f != nil {
		return f
	}
	if cause := context.Cause(ctx); cause != nil {
		return exchange.AsFault(cause, exchange.ClientAborted)
	}
	if !p.connected.Load() {
		if isHandshake(err) {
			return exchange.NewFault(exchange.UpstreamTLS, err)
		}
		return exchange.NewFault(exchange.UpstreamConnect, err)
	}
	f := exchange.NewFault(exchange.UpstreamReset, err)
	switch {
	case isAlert(err): // in TLS 1.3 an endpoint that wants a client certificate says so only now
		f = exchange.NewFault(exchange.UpstreamTLS, err)
	case isProtocol(err):
		f = exchange.NewFault(exchange.UpstreamProtocol, err)
	}
	// A kept connection that its peer closed meanwhile: nothing of the body went out, so nothing was processed.
	f.Retryable = !p.wrote.Load() || p.reused.Load() && body.read.Load() == 0 && body.body.Length() != 0
	return f
}

// isHandshake tells a failed TLS handshake from a failed dial. It looks at texts, which is safe only as long as there was no connection: an
// error about an answer quotes what the endpoint chose to send.
func isHandshake(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok || isAlert(err) {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	return strings.Contains(err.Error(), "tls: ") || strings.Contains(err.Error(), "TLS handshake")
}

// isAlert reports whether the endpoint ended the connection by a TLS alert; crypto/tls has no type for those over TCP.
func isAlert(err error) bool {
	failed, ok := errors.AsType[*net.OpError](err)
	return ok && failed.Op == "remote error"
}

// protocolTexts stand in net/http's errors about answers that break their protocol; it has no type for them. An endpoint can provoke each of
// them, which changes the word for its fault and nothing else.
var protocolTexts = []string{
	"malformed", "PROTOCOL_ERROR", "bad Content-Length", "multiple Content-Length", "unsupported transfer encoding", "response headers exceeded",
}

// isProtocol tells an answer that breaks its protocol from a broken connection.
func isProtocol(err error) bool {
	if _, ok := errors.AsType[net.Error](err); ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return false
	}
	text := err.Error()
	return slices.ContainsFunc(protocolTexts, func(s string) bool { return strings.Contains(text, s) })
}
