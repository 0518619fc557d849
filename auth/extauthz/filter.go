package extauthz

import (
	"context"
	"errors"
	"fmt"
	"io"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// filter asks one cluster of authorization servers.
type filter struct {
	cluster  string
	invalid  string
	grpc     bool
	prefix   string // without a slash at its end
	allowed  []string
	returned []string
	maxBody  int
	// added keeps the changes that the server wants made to the response.
	added filters.Slot[[]change]
}

// maxAnswer bounds the body of an authorization server's answer, in bytes.
const maxAnswer = 1 << 20

// verdict is an authorization server's answer.
type verdict struct {
	allow bool
	// Of a request that goes on: changes to it, fields to take off it, and changes to its response.
	request  []change
	remove   []string
	response []change
	// Of one that does not: what the client gets.
	denial exchange.Response
	body   []byte
}

// OnRequest asks, and lets the request go on as the server wants it, or answers for the server.
func (f *filter) OnRequest(_ context.Context, x *exchange.Exchange) (filters.Action, error) {
	if f.invalid != "" {
		return filters.Continue, failed(fmt.Errorf("there is no authorization server: %s", f.invalid))
	}
	if x.Caller == nil {
		return filters.Continue, failed(errors.New("nothing here can send a request to the authorization server"))
	}
	body, err := f.takeBody(x)
	if err != nil {
		return filters.Continue, err
	}
	v, err := f.ask(x, body)
	if err != nil {
		if x.Life != nil {
			if ended := x.Life.Fault(); ended != nil {
				return filters.Continue, ended // the client is gone, or the request took too long
			}
		}
		return filters.Continue, failed(err)
	}
	if !v.allow {
		x.Resp, x.RespBody = v.denial, exchange.Bytes(v.body)
		return filters.Reply, nil
	}
	f.strip(x)
	apply(&x.Req.Fields, v.request)
	for _, name := range v.remove {
		remove(&x.Req.Fields, name)
	}
	if len(v.response) > 0 {
		f.added.Set(x, v.response)
	}
	hideTrailers(x, f.returned, v.request)
	return filters.Continue, nil
}

// OnResponse makes the changes that the server wants made to the response.
func (f *filter) OnResponse(x *exchange.Exchange) {
	if changes, ok := f.added.Get(x); ok {
		apply(&x.Resp.Fields, changes)
	}
}

func failed(err error) error { return exchange.NewFault(exchange.AuthFailed, err) }

// ask sends the question and reads the answer.
func (f *filter) ask(x *exchange.Exchange, body []byte) (verdict, error) {
	call := exchange.Call{Cluster: f.cluster, MaxAnswer: maxAnswer}
	var err error
	if f.grpc {
		call.Head, call.Body, err = f.grpcQuestion(x, body)
	} else {
		call.Body = body
		call.Head, err = f.httpQuestion(x)
	}
	if err != nil {
		return verdict{}, err
	}
	if fault := x.Caller.Call(&call); fault != nil {
		return verdict{}, fmt.Errorf("the authorization server could not be asked: %w", cause(fault))
	}
	if f.grpc {
		return grpcAnswer(&call)
	}
	return f.httpAnswer(&call)
}

// cause says what a Fault is without being one: to the client it is this filter that failed.
func cause(fault *exchange.Fault) error { return errors.New(fault.Error()) }

// strip removes what only the server may say to the backend: whatever it does not set itself stays away.
func (f *filter) strip(x *exchange.Exchange) {
	for _, name := range f.returned {
		if mayPass(name) {
			remove(&x.Req.Fields, name)
		}
	}
}

// takeBody reads the request's body to its end, for the server, and leaves it to be read again. A body over the bound is refused: the server
// would judge another request than the backend gets (Gateway API: HTTPExternalAuthFilter.forwardBody).
func (f *filter) takeBody(x *exchange.Exchange) ([]byte, error) {
	length := x.ReqBody.Length()
	if f.maxBody == 0 || length == 0 || x.Req.Protocol != "" {
		return nil, nil
	}
	if length > int64(f.maxBody) {
		return nil, tooLarge(f.maxBody)
	}
	body := make([]byte, 0, firstRead(length, f.maxBody))
	for {
		if len(body) == cap(body) {
			body = append(body, 0)[:len(body)]
		}
		n, err := x.ReqBody.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case len(body) > f.maxBody:
			return nil, tooLarge(f.maxBody)
		case err == io.EOF:
			x.ReqBody = exchange.Replay(x.ReqBody, body)
			x.Req.Fields.DelID(exchange.Expect) // it was answered
			return body, nil
		case err != nil:
			return nil, exchange.AsFault(err, exchange.ClientAborted)
		}
	}
}

// firstRead is the room to begin with: for the whole body where its length is known, and one byte to see its end.
func firstRead(length int64, most int) int {
	const unknown = 4 << 10
	if length < 0 {
		return min(unknown, most+1)
	}
	return int(min(length, 64<<10)) + 1
}

func tooLarge(most int) error {
	return exchange.NewFault(exchange.BodyTooLarge, fmt.Errorf("the authorization server gets bodies of up to %d bytes", most))
}

// hideTrailers takes the names that the server has a say in off the request's trailers too.
func hideTrailers(x *exchange.Exchange, names []string, changes []change) {
	if x.ReqBody.Length() == 0 || x.Req.Protocol != "" || len(names) == 0 && len(changes) == 0 {
		return
	}
	x.ReqBody = &hiding{Body: x.ReqBody, names: names, changes: changes}
}

// hiding is a request body whose trailers do not say what only the server may.
type hiding struct {
	exchange.Body
	names   []string
	changes []change
}

// Ready tells what lies in memory already.
func (h *hiding) Ready() (int, bool) {
	if b, ok := h.Body.(exchange.Ready); ok {
		return b.Ready()
	}
	return 0, false
}

// Trailers are those of the body that may stay.
func (h *hiding) Trailers() exchange.Fields {
	fields := h.Body.Trailers()
	for _, name := range h.names {
		remove(&fields, name)
	}
	for _, c := range h.changes {
		remove(&fields, c.name)
	}
	return fields
}
