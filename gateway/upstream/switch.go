package upstream

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"io"
	"net/http"

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

// switchProtocols carries a request that asks for another protocol.
func (c *client) switchProtocols(ctx context.Context, addr string, a *Attempt) (*Answer, *exchange.Fault) {
	if c.h2 {
		return c.extendedConnect(ctx, addr, a)
	}
	return c.upgrade(ctx, addr, a)
}

func (c *client) upgrade(ctx context.Context, addr string, a *Attempt) (*Answer, *exchange.Fault) {
	body := &requestBody{body: exchange.NoBody}
	request := c.request(addr, &Attempt{Request: a.Request, Body: exchange.NoBody}, body)
	made := ""
	if a.Request.Method == http.MethodConnect {
		request.Method = http.MethodGet
		if a.Request.Protocol == "websocket" {
			var nonce [16]byte
			_, _ = rand.Read(nonce[:]) // never fails (crypto/rand)
			made = base64.StdEncoding.EncodeToString(nonce[:])
			request.Header[keyField] = []string{made}
		}
	}
	delete(request.Header, "Te") // HTTP/1.1 would have it named in Connection
	request.Header["Connection"] = []string{"Upgrade"}
	request.Header["Upgrade"] = []string{a.Request.Protocol}
	response, progress, err := c.roundTrip(ctx, request, a.Inform)
	if err != nil {
		return nil, fault(ctx, err, progress, body)
	}
	fields := fromHeader(response.Header)
	if response.StatusCode != http.StatusSwitchingProtocols {
		return &Answer{Response: exchange.Response{Status: response.StatusCode, Fields: fields}, Body: &responseBody{ctx, response}}, nil
	}
	raw, ok := response.Body.(io.ReadWriteCloser)
	if !ok || !fields.HasToken(exchange.Upgrade, a.Request.Protocol) {
		_ = response.Body.Close()
		return nil, exchange.NewFault(exchange.UpstreamProtocol, errors.New("the endpoint answered 101 but did not switch to the protocol asked for"))
	}
	if made != "" {
		if got, _ := fields.Lookup(acceptField); got != acceptOf(made) {
			_ = raw.Close()
			return nil, exchange.NewFault(exchange.UpstreamProtocol, errors.New("the endpoint's Sec-WebSocket-Accept is wrong"))
		}
		fields.Del(acceptField)
	}
	return &Answer{Response: exchange.Response{Status: http.StatusSwitchingProtocols, Fields: fields}, Body: exchange.NoBody, Tunnel: upgraded{raw}}, nil
}

// upgraded is a connection after 101.
type upgraded struct{ io.ReadWriteCloser }

// CloseWrite half-closes where the connection can, and returns errors.ErrUnsupported where it cannot.
func (u upgraded) CloseWrite() error {
	if half, ok := u.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
