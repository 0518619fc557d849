package downstream

import (
	"io"
	"net/http"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// probeTime bounds the wait for the end of a request that probably has no body.
const probeTime = 100 * time.Millisecond

// seldomHasBody names the methods whose requests have a body only by way of exception (RFC 9110 9.3).
func seldomHasBody(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodOptions:
		return true
	}
	return false
}

// probe finds out whether a request has a body when its head does not say: HTTP/3 hands a request out before it is known whether the
// stream ended with the head, and a GET must not reach an HTTP/1.1 endpoint in chunks because of that. The end comes with the head in
// one packet nearly always; a request that does stream waits for its first byte, at most probeTime.
func probe(body *clientBody) exchange.Body {
	p := &probed{clientBody: body, first: make(chan firstRead, 1)}
	go func() { // ends with the request: the server closes its body
		data := make([]byte, 512)
		n, err := body.Read(data)
		p.first <- firstRead{data[:n], err}
	}()
	timer := time.NewTimer(probeTime)
	defer timer.Stop()
	select {
	case got := <-p.first:
		if len(got.data) == 0 && got.err == io.EOF {
			return exchange.NoBody
		}
		p.first <- got
	case <-timer.C:
	}
	return p
}

type firstRead struct {
	data []byte
	err  error
}

// probed is a body whose first bytes were read ahead.
type probed struct {
	*clientBody
	first chan firstRead // buffered; nil once its one value was taken
	ahead firstRead
}

// Read returns what was read ahead, then reads on.
func (p *probed) Read(b []byte) (int, error) {
	if p.first != nil {
		p.ahead, p.first = <-p.first, nil
	}
	if len(p.ahead.data) > 0 {
		n := copy(b, p.ahead.data)
		p.ahead.data = p.ahead.data[n:]
		return n, nil
	}
	if p.ahead.err != nil {
		return 0, p.ahead.err
	}
	return p.clientBody.Read(b)
}
