package upstream

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"strings"

	"gatehouse.dev/gatehouse/gateway/codec/h1"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// A protocol switch (WebSocket, mostly) has two shapes: "Upgrade" in HTTP/1.1 (RFC 9110 7.8), answered by 101, and extended CONNECT
// in HTTP/2 and HTTP/3 (RFC 8441, RFC 9220), answered by 2xx. Client and endpoint may speak different ones:
//
//	client     endpoint
//	Upgrade    Upgrade      the handshake fields pass through
//	CONNECT    Upgrade      a Sec-WebSocket-Key is made here and its answer checked here
//	Upgrade    CONNECT      the client's key is answered here
//	CONNECT    CONNECT      nothing to translate
//
// The Engine answers the client in the client's shape: Status here is always 101 or the endpoint's refusal.

// acceptGUID is the constant of RFC 6455 4.2.2.
const acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

const (
	keyField    = "Sec-WebSocket-Key"
	acceptField = "Sec-WebSocket-Accept"
)

func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + acceptGUID))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// composeUpgrade appends the head of a request that asks for another protocol. It has no body: what the client sends belongs to the tunnel.
func (c *conn) composeUpgrade(dst []byte, head *exchange.Head) []byte {
	c.upgrade = head.Protocol
	c.request = h1.Message{Proto: exchange.HTTP11}
	if head.Method != "CONNECT" {
		return c.appendHead(dst, head)
	}
	plain := *head
	plain.Method = "GET"
	if head.Protocol == "websocket" {
		var nonce [16]byte
		_, _ = rand.Read(nonce[:]) // never fails (crypto/rand)
		c.key = base64.StdEncoding.EncodeToString(nonce[:])
		plain.Fields = head.Fields.Clone()
		plain.Fields.Set(keyField, c.key)
	}
	return c.appendHead(dst, &plain)
}

// switchOver makes a raw stream of the connection, after 101.
func (c *conn) switchOver(a *Attempt) *exchange.Fault {
	fields := &a.Response.Fields
	if c.upgrade == "" {
		return exchange.NewFault(exchange.UpstreamProtocol, errors.New("the endpoint switched protocols without having been asked to"))
	}
	if !fields.HasToken(exchange.Upgrade, c.upgrade) {
		return exchange.NewFault(exchange.UpstreamProtocol, errors.New("the endpoint answered 101 but did not switch to the protocol asked for"))
	}
	if c.key != "" {
		if got, _ := fields.Lookup(acceptField); got != acceptOf(c.key) {
			return exchange.NewFault(exchange.UpstreamProtocol, errors.New("the endpoint's Sec-WebSocket-Accept is wrong"))
		}
		fields.Del(acceptField)
	}
	// A tunnel may last for hours; it does not hold the memory of the head for as long.
	for i := range *fields {
		f := &(*fields)[i]
		f.Name, f.Value = strings.Clone(f.Name), strings.Clone(f.Value)
	}
	c.state = switched
	c.in.Next()
	c.in.Raw()
	a.Answer, a.Tunnel = exchange.NoBody, h1Tunnel{c}
	return nil
}

// h1Tunnel is a connection after 101.
type h1Tunnel struct{ conn *conn }

// Read returns bytes from the endpoint: io.EOF when it ended its side.
func (t h1Tunnel) Read(p []byte) (int, error) { return t.conn.in.Read(p) }

// Write sends bytes to the endpoint.
func (t h1Tunnel) Write(p []byte) (int, error) { return t.conn.rw.Write(p) }

// CloseWrite half-closes the connection.
func (t h1Tunnel) CloseWrite() error {
	if half, ok := t.conn.rw.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close ends the connection, and what waits for it.
func (t h1Tunnel) Close() error { return t.conn.line.Close() }
