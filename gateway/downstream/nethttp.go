package downstream

import (
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// This file and responder.go stand between net/http's server types (which quic-go's HTTP/3 uses as well) and the Exchange. Nothing
// outside the two knows net/http.

// connInfo is what all exchanges of one connection share.
type connInfo struct {
	remote, local netip.AddrPort
	tls           *exchange.TLSInfo
	tcp           net.Conn  // nil on QUIC
	quic          *quicConn // nil on TCP
}

type connInfoKey struct{}

func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		return unmap(a.AddrPort())
	case *net.UDPAddr:
		return unmap(a.AddrPort())
	}
	return netip.AddrPort{}
}

// unmap makes one address of an IPv4 client on a dual-stack socket and on an IPv4 one.
func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

func tlsInfo(cs tls.ConnectionState) *exchange.TLSInfo {
	info := &exchange.TLSInfo{ServerName: exchange.CanonicalHost(cs.ServerName), Version: cs.Version, CipherSuite: cs.CipherSuite}
	for _, c := range cs.PeerCertificates {
		info.PeerCertificates = append(info.PeerCertificates, c.Raw)
	}
	return info
}

func (b *bind) serveHTTP(w http.ResponseWriter, r *http.Request) {
	info, _ := r.Context().Value(connInfoKey{}).(*connInfo)
	if info.quic != nil {
		info.quic.begin()
		defer info.quic.end()
	}
	x := &exchange.Exchange{
		Start:   time.Now(),
		Peer:    exchange.Peer{Bind: b.key, Remote: info.remote, Local: info.local, TLS: info.tls, Proto: proto(r)},
		ReqBody: exchange.NoBody,
	}
	x.Req, x.Fault = b.head(r, x.Peer.Proto)
	control := http.NewResponseController(w)
	out := &responder{bind: b, exchange: x, w: w, r: r, control: control}
	if r.ContentLength != 0 && r.Body != nil && r.Body != http.NoBody {
		if x.Peer.Proto == exchange.HTTP11 {
			// Bodies may flow both ways at once; without this the server would read all of the request before it answers.
			_ = control.EnableFullDuplex()
		}
		body := &clientBody{request: r, control: control, idle: b.options.Limits.BodyIdleTimeout, left: b.options.Limits.MaxBodyBytes}
		if x.Peer.Proto < exchange.HTTP2 {
			body.tcp = info.tcp
		}
		x.ReqBody, out.body = body, body
		defer body.end()
		switch {
		case x.Peer.Proto != exchange.HTTP3:
		case strings.EqualFold(x.Req.Fields.Get(exchange.Expect), "100-continue"):
			body.proceed = sync.OnceFunc(out.proceed)
		case r.ContentLength < 0 && seldomHasBody(r.Method):
			x.ReqBody = probe(body)
		}
	}
	if most := b.options.Limits.MaxBodyBytes; most >= 0 && r.ContentLength > most && x.Fault == nil {
		x.Fault = exchange.NewFault(exchange.BodyTooLarge, nil)
	}
	b.options.Handler.ServeExchange(r.Context(), x, out)
	if out.aborted {
		panic(http.ErrAbortHandler) // net/http's way to reset a stream or cut a connection
	}
}

func proto(r *http.Request) exchange.Proto {
	switch r.ProtoMajor {
	case 3:
		return exchange.HTTP3
	case 2:
		return exchange.HTTP2
	}
	if r.ProtoMinor == 0 {
		return exchange.HTTP10
	}
	return exchange.HTTP11
}

// head translates the request head; a Fault says why it cannot be served.
func (b *bind) head(r *http.Request, proto exchange.Proto) (exchange.Head, *exchange.Fault) {
	head := exchange.Head{Method: r.Method, Scheme: "http", Authority: r.Host, Target: originForm(r)}
	if b.TLS {
		head.Scheme = "https"
	}
	head.Fields = make(exchange.Fields, 0, len(r.Header)+8)
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		if name == ":protocol" {
			head.Protocol = strings.ToLower(r.Header[name][0])
			continue
		}
		for _, value := range r.Header[name] {
			head.Fields.Add(name, value)
		}
	}
	if len(r.Trailer) > 0 {
		head.Fields.Add("Trailer", strings.Join(slices.Sorted(maps.Keys(r.Trailer)), ", "))
	}
	switch host := head.Fields.Get(exchange.Host); {
	case len(head.Fields) > b.options.Limits.MaxHeaderCount:
		return head, exchange.NewFault(exchange.FieldsTooLarge, nil)
	case host != "" && host != r.Host:
		return head, exchange.NewFault(exchange.BadRequest, errors.New(":authority and host disagree"))
	}
	if proto == exchange.HTTP3 && r.Method == http.MethodConnect && r.Proto != "" && !strings.HasPrefix(r.Proto, "HTTP/") {
		head.Protocol = strings.ToLower(r.Proto)
	}
	if head.Protocol != "" && r.Method != http.MethodConnect {
		return head, exchange.NewFault(exchange.BadRequest, errors.New(":protocol belongs to CONNECT (RFC 8441 4)"))
	}
	return head, upgradeOf(&head, r, proto)
}

// upgradeOf fills in Head.Protocol for an HTTP/1.1 Upgrade. A request that upgrades must carry nothing else: what followed its head
// could be taken for the new protocol's bytes by one side and for a body by the other.
func upgradeOf(head *exchange.Head, r *http.Request, proto exchange.Proto) *exchange.Fault {
	if proto != exchange.HTTP11 || !head.Fields.HasToken(exchange.Connection, "upgrade") {
		return nil
	}
	token := strings.ToLower(strings.TrimSpace(head.Fields.Get(exchange.Upgrade)))
	if token == "" || token == "h2c" || strings.HasPrefix(token, "tls/") || strings.HasPrefix(token, "http/") || strings.Contains(token, ",") {
		return nil // a server may ignore Upgrade (RFC 9110 7.8); these are about the connection itself
	}
	if r.ContentLength != 0 {
		return exchange.NewFault(exchange.UpgradeUnsupported, errors.New("a request that upgrades must not have a body"))
	}
	head.Protocol = token
	return nil
}

// originForm returns path and query as they came. An absolute-form target (RFC 9112 3.2.2) loses scheme and authority, which
// net/http has made the Host.
func originForm(r *http.Request) string {
	target := r.RequestURI
	if r.Method == http.MethodConnect && r.ProtoMajor < 2 || strings.HasPrefix(target, "/") || target == "*" {
		return target
	}
	_, rest, ok := strings.Cut(target, "://")
	if !ok {
		return target
	}
	if slash := strings.IndexAny(rest, "/?"); slash >= 0 {
		if rest[slash] == '?' {
			return "/" + rest[slash:]
		}
		return rest[slash:]
	}
	if r.Method == http.MethodOptions {
		return "*"
	}
	return "/"
}

// clientBody is a request's body with its limits.
type clientBody struct {
	request *http.Request
	control *http.ResponseController
	tcp     net.Conn // the connection in HTTP/1.1, which carries nothing else meanwhile; nil otherwise
	idle    time.Duration
	left    int64 // bytes still allowed; negative for no limit
	// proceed asks a waiting client for its body. It is nil where the server does that by itself, as net/http's do.
	proceed func()

	// An endpoint's client may still read when the exchange is over (it answered early); the response writer must not be touched then.
	mu    sync.Mutex
	over  bool  // guarded by mu
	whole bool  // every byte of the body was read; guarded by mu
	count int64 // bytes read; guarded by mu
}

// lingerTime is how long a client may go on sending a body that nobody reads, so that it sees the response before the connection ends.
const lingerTime = time.Second

// end comes before the server takes the request back. In HTTP/1.1 the server would then wait for the rest of an unread body for as long
// as the client likes. The connection ends after the response anyway (see responder.fill).
func (c *clientBody) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if c.tcp != nil && !c.whole {
		// The server sets deadlines of its own on the way: this one must come later than those.
		time.AfterFunc(lingerTime, func() { _ = c.tcp.SetReadDeadline(time.Unix(1, 0)) })
	}
}

// complete reports whether the body was read to its end. A connection that is not there cannot be used for another request.
func (c *clientBody) complete() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.whole
}

// begin prepares one read; false means that the exchange is over.
func (c *clientBody) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return false
	}
	if c.proceed != nil {
		c.proceed()
	}
	if c.idle > 0 {
		_ = c.control.SetReadDeadline(time.Now().Add(c.idle))
	}
	return true
}

// finish ends one read; after the last it lifts the deadline.
func (c *clientBody) finish(n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count += int64(n)
	c.whole = c.whole || err == io.EOF || c.count == c.request.ContentLength
	if err != nil && !c.over && c.idle > 0 {
		_ = c.control.SetReadDeadline(time.Time{})
	}
}

// Read returns a *Fault for everything but the end.
func (c *clientBody) Read(p []byte) (int, error) {
	if !c.begin() {
		return 0, exchange.NewFault(exchange.ClientAborted, http.ErrBodyReadAfterClose)
	}
	n, err := c.request.Body.Read(p)
	c.finish(n, err)
	if c.left >= 0 {
		if int64(n) > c.left {
			return int(c.left), exchange.NewFault(exchange.BodyTooLarge, nil)
		}
		c.left -= int64(n)
	}
	if err == nil {
		return n, nil
	}
	switch {
	case err == io.EOF:
		return n, io.EOF
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, exchange.NewFault(exchange.ClientTimeout, err)
	case c.request.Context().Err() != nil || errors.Is(err, io.ErrUnexpectedEOF):
		return n, exchange.NewFault(exchange.ClientAborted, err)
	}
	return n, exchange.NewFault(exchange.BadRequest, err)
}

// Close gives up what is left; net/http decides whether the connection can go on.
func (c *clientBody) Close() error { return c.request.Body.Close() }

// Length is the request's content length, -1 when unknown.
func (c *clientBody) Length() int64 { return c.request.ContentLength }

// Trailers returns the trailers; net/http hands out only those that were announced.
func (c *clientBody) Trailers() exchange.Fields {
	var fields exchange.Fields
	for _, name := range slices.Sorted(maps.Keys(c.request.Trailer)) {
		for _, value := range c.request.Trailer[name] {
			fields.Add(name, value)
		}
	}
	return fields
}
