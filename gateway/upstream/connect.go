package upstream

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// Extended CONNECT (RFC 8441) to an HTTP/2 endpoint. net/http's Transport does not send the pseudo-field ":protocol", so a tunnel is
// carried here, over a connection of its own with one stream:
//
//	dial, TLS with ALPN     "http/1.1" was chosen: Upgrade instead
//	preface, SETTINGS   ->
//	                   <-   SETTINGS; without ENABLE_CONNECT_PROTOCOL the endpoint cannot take the request
//	HEADERS             ->
//	                   <-   HEADERS 1xx ..., HEADERS final: 2xx opens the tunnel, anything else is an ordinary answer
//	DATA              <-->  DATA, see h2Tunnel
//
// A codec of our own will put tunnels and requests on shared connections; then this file goes.

// dialTunnel connects to the endpoint. h2 is false when the endpoint chose HTTP/1.1.
func (c *client) dialTunnel(ctx context.Context, addr string) (conn net.Conn, h2 bool, _ *exchange.Fault) {
	conn, err := c.dialer.dial(ctx, "tcp", addr)
	if err != nil {
		return nil, false, ended(ctx, exchange.NewFault(exchange.UpstreamConnect, err))
	}
	if c.dialer.tls == nil {
		return conn, true, nil
	}
	conf := c.dialer.tls.Clone()
	conf.NextProtos = []string{"h2", "http/1.1"}
	if conf.ServerName == "" {
		conf.ServerName, _, _ = net.SplitHostPort(addr) // as net/http does
	}
	secure := tls.Client(conn, conf)
	limited, cancel := context.WithTimeout(ctx, ConnectTimeout)
	defer cancel()
	if err := secure.HandshakeContext(limited); err != nil {
		_ = conn.Close()
		return nil, false, ended(ctx, exchange.NewFault(exchange.UpstreamTLS, err))
	}
	return secure, secure.ConnectionState().NegotiatedProtocol == "h2", nil
}

// ended returns why the context ended when it did, else f.
func ended(ctx context.Context, f *exchange.Fault) *exchange.Fault {
	if cause := context.Cause(ctx); cause != nil {
		return exchange.AsFault(cause, exchange.ClientAborted)
	}
	return f
}

// extendedConnect opens a tunnel to an HTTP/2 endpoint. Over TLS an endpoint that chooses HTTP/1.1, or does not offer extended CONNECT, gets
// an Upgrade: net/http then asks for HTTP/1.1 alone, in a handshake of its own. Most servers take WebSocket only so.
func (c *client) extendedConnect(ctx context.Context, addr string, a *Attempt) (*Answer, *exchange.Fault) {
	fields, err := c.connectFields(addr, a.Request)
	if err != nil {
		return nil, exchange.NewFault(exchange.BadRequest, err)
	}
	conn, h2, fault := c.dialTunnel(ctx, addr)
	if fault != nil {
		return nil, fault
	}
	if !h2 {
		_ = conn.Close()
		return c.upgrade(ctx, addr, a)
	}
	t := newTunnel(ctx, conn)
	head, err := t.open(fields, a.Inform)
	if err != nil {
		fault := t.fail(err)
		if fault.Kind == exchange.UpgradeUnsupported && c.scheme == "https" {
			return c.upgrade(ctx, addr, a)
		}
		return nil, fault
	}
	if head.status/100 == 2 {
		return &Answer{Response: c.switched(a.Request, head), Body: exchange.NoBody, Tunnel: t}, nil
	}
	body, err := t.refusal(head)
	if err != nil {
		return nil, t.fail(err)
	}
	return &Answer{Response: exchange.Response{Status: head.status, Fields: head.fields}, Body: body}, nil
}

// switched is the answer to a client whose tunnel is open.
func (c *client) switched(request *exchange.Head, head *connectHead) exchange.Response {
	head.fields.DelID(exchange.ContentLength) // means nothing here (RFC 9110 9.3.6)
	if request.Method != http.MethodConnect {
		if key, ok := request.Fields.Lookup(keyField); ok {
			head.fields.Set(acceptField, acceptOf(key))
		}
	}
	return exchange.Response{Status: http.StatusSwitchingProtocols, Fields: head.fields}
}

// connectFields is the field section of the request. A name or value that HTTP has no place for is an error: past the next HTTP/1.1
// hop it would be another message.
func (c *client) connectFields(addr string, request *exchange.Head) ([]hpack.HeaderField, error) {
	list := make([]hpack.HeaderField, 0, len(request.Fields)+5)
	list = append(list,
		hpack.HeaderField{Name: ":method", Value: http.MethodConnect},
		hpack.HeaderField{Name: ":protocol", Value: request.Protocol},
		hpack.HeaderField{Name: ":scheme", Value: c.scheme},
		hpack.HeaderField{Name: ":path", Value: request.ForwardTarget()},
		hpack.HeaderField{Name: ":authority", Value: cmp.Or(request.Authority, addr)},
	)
	for i := range request.Fields {
		f := &request.Fields[i]
		switch f.ID {
		case exchange.Host, exchange.ContentLength, exchange.Trailer, exchange.Expect, exchange.HTTP2Settings:
			continue
		case exchange.TE:
			if !strings.EqualFold(f.Value, "trailers") { // RFC 9113 8.2.2
				continue
			}
		}
		if connectionSpecific(f.ID) || strings.EqualFold(f.Name, keyField) { // the key has no part in RFC 8441 (5)
			continue
		}
		if !httpguts.ValidHeaderFieldName(f.Name) {
			return nil, fmt.Errorf("the field name %q cannot be sent: it is no token", f.Name)
		}
		if !httpguts.ValidHeaderFieldValue(f.Value) {
			return nil, fmt.Errorf("the field %s cannot be sent: its value holds a control character", f.Name)
		}
		list = append(list, hpack.HeaderField{Name: strings.ToLower(f.Name), Value: f.Value})
	}
	return list, nil
}

// connectionSpecific names the fields that no HTTP/2 message may have (RFC 9113 8.2.2), TE apart.
func connectionSpecific(id exchange.ID) bool {
	switch id {
	case exchange.Connection, exchange.KeepAlive, exchange.ProxyConnection, exchange.TransferEncoding, exchange.Upgrade:
		return true
	}
	return false
}

// open shakes hands and carries the request, up to the final response head.
func (t *h2Tunnel) open(fields []hpack.HeaderField, inform func(int, exchange.Fields)) (*connectHead, error) {
	if err := t.greet(); err != nil {
		return nil, err
	}
	if !t.extended {
		return nil, exchange.NewFault(exchange.UpgradeUnsupported, errors.New(
			"the endpoint does not offer extended CONNECT (RFC 8441): have it send SETTINGS_ENABLE_CONNECT_PROTOCOL, or speak HTTP/1.1 to it"))
	}
	if err := t.sendHead(fields); err != nil {
		return nil, err
	}
	for {
		head, err := t.step()
		if err != nil {
			return nil, err
		}
		switch {
		case head == nil:
		case head.status == http.StatusSwitchingProtocols:
			return nil, protocolError{http2.ErrCodeProtocol, "the endpoint answered 101, which HTTP/2 does not have"}
		case head.status >= 200:
			go t.read()
			return head, nil
		case head.status != http.StatusContinue && inform != nil:
			inform(head.status, head.fields)
		}
	}
}

// greet exchanges the connection prefaces. The endpoint's is a SETTINGS frame (RFC 9113 3.4).
func (t *h2Tunnel) greet() error {
	if err := t.conn.SetDeadline(time.Now().Add(ConnectTimeout)); err != nil {
		return err
	}
	var hello bytes.Buffer
	hello.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&hello, nil) // a Buffer takes everything: its errors are nil
	_ = framer.WriteSettings(
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: tunnelWindow},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: MaxResponseHeaderBytes},
	)
	_ = framer.WriteWindowUpdate(0, tunnelWindow-initialWindow)
	if _, err := t.conn.Write(hello.Bytes()); err != nil {
		return err
	}
	frame, err := t.next()
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return exchange.NewFault(exchange.UpstreamConnect, fmt.Errorf("the endpoint did not begin HTTP/2 within %v", ConnectTimeout))
	}
	if err != nil {
		return err
	}
	settings, ok := frame.(*http2.SettingsFrame)
	if !ok || settings.IsAck() {
		return protocolError{http2.ErrCodeProtocol, "the endpoint did not begin with SETTINGS"}
	}
	if err := t.gotSettings(settings); err != nil {
		return err
	}
	return t.conn.SetDeadline(time.Time{})
}

// sendHead writes HEADERS, and CONTINUATION for what is over one frame.
func (t *h2Tunnel) sendHead(fields []hpack.HeaderField) error {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	encoder.SetMaxDynamicTableSize(0) // nothing is sent twice here, and no endpoint's limit is below this
	var size uint64
	for _, f := range fields {
		size += uint64(f.Size())
		_ = encoder.WriteField(f) // a Buffer takes everything
	}
	t.mu.Lock()
	limit := t.headLimit
	t.mu.Unlock()
	if size > uint64(limit) {
		return exchange.NewFault(exchange.FieldsTooLarge, fmt.Errorf("the request head has %d bytes, the endpoint takes %d", size, limit))
	}
	t.wrote.Store(true)
	return t.write(func(out *http2.Framer) error {
		first := block.Next(maxFramePayload)
		err := out.WriteHeaders(http2.HeadersFrameParam{StreamID: streamID, BlockFragment: first, EndHeaders: block.Len() == 0})
		for err == nil && block.Len() > 0 {
			next := block.Next(maxFramePayload)
			err = out.WriteContinuation(streamID, block.Len() == 0, next)
		}
		return err
	})
}

// connectHead is a response head.
type connectHead struct {
	status int
	fields exchange.Fields
}

// add takes one field of the block (RFC 9113 8.3.2: one :status, first).
func (h *connectHead) add(f hpack.HeaderField) error {
	switch {
	case f.Name == ":status" && h.status == 0 && len(h.fields) == 0:
		status, err := strconv.ParseUint(f.Value, 10, 16)
		if err != nil || len(f.Value) != 3 || status < 100 {
			return protocolError{http2.ErrCodeProtocol, fmt.Sprintf("malformed status %.10q", f.Value)}
		}
		h.status = int(status)
		return nil
	case strings.HasPrefix(f.Name, ":"):
		return protocolError{http2.ErrCodeProtocol, fmt.Sprintf("malformed response: the field %.40q is out of place", f.Name)}
	case !httpguts.ValidHeaderFieldName(f.Name) || f.Name != strings.ToLower(f.Name):
		return protocolError{http2.ErrCodeProtocol, fmt.Sprintf("malformed field name %.40q", f.Name)}
	case !httpguts.ValidHeaderFieldValue(f.Value):
		return protocolError{http2.ErrCodeProtocol, fmt.Sprintf("malformed value of the field %.40q", f.Name)}
	case connectionSpecific(exchange.IDOf(f.Name)):
		return protocolError{http2.ErrCodeProtocol, fmt.Sprintf("malformed response: it has the field %q, which HTTP/2 forbids", f.Name)}
	}
	h.fields.Add(f.Name, f.Value)
	return nil
}

// decode reads a field block within what is left of the tunnel's budget for heads.
func (t *h2Tunnel) decode(block []byte) (*connectHead, error) {
	head := &connectHead{}
	var bad error
	t.decoder.SetEmitEnabled(true)
	t.decoder.SetEmitFunc(func(f hpack.HeaderField) {
		if t.headBudget -= int(f.Size()); t.headBudget < 0 {
			bad = errHeadTooLarge
		} else if bad == nil {
			bad = head.add(f)
		}
		t.decoder.SetEmitEnabled(bad == nil)
	})
	_, err := t.decoder.Write(block)
	err = errors.Join(err, t.decoder.Close())
	switch {
	case bad != nil:
		return nil, bad
	case err != nil:
		return nil, protocolError{http2.ErrCodeCompression, "malformed response head: " + err.Error()}
	case head.status == 0:
		return nil, protocolError{http2.ErrCodeProtocol, "malformed response: it has no status"}
	}
	return head, nil
}

// refusal is the body of an answer that opens no tunnel. It ends our side: nothing will be sent.
func (t *h2Tunnel) refusal(head *connectHead) (exchange.Body, error) {
	_ = t.CloseWrite() // the endpoint may have ended the stream already; reading its answer tells how
	body := &refusalBody{tunnel: t, length: -1}
	var lengths []string
	for i := range head.fields {
		if head.fields[i].ID == exchange.ContentLength {
			lengths = append(lengths, head.fields[i].Value)
		}
	}
	if len(lengths) == 0 || head.status == http.StatusNotModified || head.status == http.StatusNoContent {
		return body, nil
	}
	length, err := strconv.ParseInt(lengths[0], 10, 64)
	if err != nil || length < 0 || len(lengths) > 1 || lengths[0][0] == '+' {
		return nil, protocolError{http2.ErrCodeProtocol, fmt.Sprintf("malformed content-length %.40q", strings.Join(lengths, ", "))}
	}
	body.length, body.left = length, length
	return body, nil
}

// refusalBody is the body of a refused CONNECT, held to its content-length (RFC 9113 8.1.1).
type refusalBody struct {
	tunnel *h2Tunnel
	length int64 // -1 when the response names none
	left   int64
}

// Read returns the endpoint's bytes.
func (b *refusalBody) Read(p []byte) (int, error) {
	n, err := b.tunnel.Read(p)
	if b.length < 0 {
		return n, err
	}
	b.left -= int64(n)
	if b.left < 0 || b.left > 0 && err == io.EOF {
		return 0, b.tunnel.fail(protocolError{http2.ErrCodeProtocol, "bad Content-Length: the body has another"})
	}
	return n, err
}

// Close gives up what is left, and the connection.
func (b *refusalBody) Close() error { return b.tunnel.Close() }

// Length is the response's content length, -1 when unknown.
func (b *refusalBody) Length() int64 { return b.length }

// Trailers returns nothing: a refusal's are not looked at.
func (b *refusalBody) Trailers() exchange.Fields { return nil }
