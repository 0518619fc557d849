package gateway

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"gatehouse.dev/gatehouse/gateway/codec/h2"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/upstream"
)

// A gRPC client reads grpc-status, not the HTTP status. An answer that the gateway makes by itself, because of a Fault or a filter, therefore
// takes the form that such a client knows, trailers-only: one head that ends the stream.
//
//	:status: 200
//	content-type: application/grpc
//	grpc-status: 12
//	grpc-message: no_route
//
// That is so over HTTP/2 and HTTP/3. gRPC over HTTP/1.1 has no standard form and is left alone, and gRPC-Web is another protocol.

// grpcCode is a gRPC status code.
type grpcCode int

// The codes that the gateway answers with (the gRPC specification's "Status codes and their use in gRPC").
const (
	grpcCancelled         grpcCode = 1
	grpcUnknown           grpcCode = 2
	grpcInvalidArgument   grpcCode = 3
	grpcDeadlineExceeded  grpcCode = 4
	grpcPermissionDenied  grpcCode = 7
	grpcResourceExhausted grpcCode = 8
	grpcUnimplemented     grpcCode = 12
	grpcInternal          grpcCode = 13
	grpcUnavailable       grpcCode = 14
	grpcUnauthenticated   grpcCode = 16
)

const (
	grpcStatusName  = "grpc-status"
	grpcMessageName = "grpc-message"
	grpcType        = "application/grpc"
	// grpcMostMessage bounds grpc-message: it is a header field.
	grpcMostMessage = 1024
)

// asksGRPC reports whether a request is a gRPC call over HTTP/2 or HTTP/3.
func asksGRPC(x *exchange.Exchange) bool {
	if x.Peer.Proto != exchange.HTTP2 && x.Peer.Proto != exchange.HTTP3 {
		return false
	}
	return isGRPC(x.Req.Fields.Get(exchange.ContentType))
}

// isGRPC takes "application/grpc" with a subtype behind '+' or parameters behind ';', but not application/grpc-web.
func isGRPC(contentType string) bool {
	if len(contentType) < len(grpcType) || !strings.EqualFold(contentType[:len(grpcType)], grpcType) {
		return false
	}
	return len(contentType) == len(grpcType) || strings.IndexByte("+; \t", contentType[len(grpcType)]) >= 0
}

// grpcFault says what a Fault is to a gRPC client.
func grpcFault(x *exchange.Exchange, fault *exchange.Fault, now time.Time) grpcCode {
	switch fault.Kind {
	case exchange.UpstreamReset:
		if deadlineOver(x, now) {
			// The endpoint ends a call at its deadline, most likely a moment before the client's own clock does.
			return grpcDeadlineExceeded
		}
		if reset, ok := errors.AsType[*upstream.ResetError](fault.Err); ok {
			return grpcReset(reset.Code)
		}
		return grpcUnavailable
	case exchange.UpstreamTimeout, exchange.RequestTimeout, exchange.ClientTimeout:
		return grpcDeadlineExceeded
	case exchange.NoRoute, exchange.MethodRefused:
		return grpcUnimplemented
	case exchange.NoEndpoints, exchange.NoBackends, exchange.InvalidBackend, exchange.UpstreamConnect, exchange.UpstreamTLS,
		exchange.Misdirected:
		return grpcUnavailable
	case exchange.AuthFailed:
		return grpcPermissionDenied
	case exchange.FieldsTooLarge, exchange.BodyTooLarge:
		return grpcResourceExhausted
	case exchange.BadPath:
		return grpcInvalidArgument
	case exchange.ClientAborted:
		return grpcCancelled
	}
	return grpcInternal // bad_request, expectation_failed, upgrade_unsupported, filter_failed, upstream_protocol
}

// grpcReset translates the code of RST_STREAM (the gRPC specification's PROTOCOL-HTTP2, "HTTP2 error codes").
func grpcReset(code h2.Code) grpcCode {
	switch code {
	case h2.RefusedStream:
		return grpcUnavailable
	case h2.Cancel:
		return grpcCancelled
	case h2.EnhanceYourCalm:
		return grpcResourceExhausted
	case h2.InadequateSecurity:
		return grpcPermissionDenied
	case h2.StreamClosed, h2.HTTP11Required:
		return grpcUnknown // the specification has no mapping
	}
	return grpcInternal
}

// grpcStatus translates the HTTP status of a filter's answer (the gRPC specification's http-grpc-status-mapping).
func grpcStatus(status int) grpcCode {
	switch status {
	case 400:
		return grpcInternal
	case 401:
		return grpcUnauthenticated
	case 403:
		return grpcPermissionDenied
	case 404:
		return grpcUnimplemented
	case 429, 502, 503, 504:
		return grpcUnavailable
	}
	return grpcUnknown
}

// deadlineOver reports whether the time that the call may take, as its grpc-timeout says, is over.
func deadlineOver(x *exchange.Exchange, now time.Time) bool {
	text, ok := x.Req.Fields.Lookup("grpc-timeout")
	if !ok {
		return false
	}
	most, ok := grpcTimeout(text)
	return ok && !now.Before(x.Start.Add(most))
}

// grpcTimeout reads grpc-timeout:
//
//	Timeout     = TimeoutValue TimeoutUnit
//	TimeoutValue = 1*8DIGIT
//	TimeoutUnit  = "H" / "M" / "S" / "m" / "u" / "n"
func grpcTimeout(text string) (time.Duration, bool) {
	digits := len(text) - 1
	if digits < 1 || digits > 8 {
		return 0, false
	}
	n, err := strconv.ParseUint(text[:digits], 10, 32)
	if err != nil {
		return 0, false
	}
	var unit time.Duration
	switch text[digits] {
	case 'H':
		unit, n = time.Hour, min(n, 1<<20)
	case 'M':
		unit, n = time.Minute, min(n, 1<<26)
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	}
	return time.Duration(n) * unit, unit > 0
}

// grpcReply makes x.Resp a trailers-only answer. Fields that are there already stay, but for those that speak of a body.
func grpcReply(x *exchange.Exchange, code grpcCode, message string) {
	fields := x.Resp.Fields.Filter(func(f *exchange.Field) bool {
		return f.ID != exchange.ContentType && f.ID != exchange.ContentLength && !strings.EqualFold(f.Name, "content-encoding") &&
			!strings.EqualFold(f.Name, grpcStatusName) && !strings.EqualFold(f.Name, grpcMessageName)
	})
	fields.AddID(exchange.ContentType, "Content-Type", grpcType)
	x.Resp.Status, x.Resp.Fields = 200, appendGRPCStatus(fields, code, message)
}

func appendGRPCStatus(fields exchange.Fields, code grpcCode, message string) exchange.Fields {
	fields.Add(grpcStatusName, strconv.Itoa(int(code)))
	if message != "" {
		fields.Add(grpcMessageName, grpcEscape(message))
	}
	return fields
}

// grpcEscape percent-encodes a message: everything but printable ASCII, and '%' itself (the gRPC specification's "Responses").
func grpcEscape(message string) string {
	const hex = "0123456789ABCDEF"
	var out strings.Builder
	for i := range len(message) {
		if c := message[i]; c < ' ' || c > '~' || c == '%' {
			out.Write([]byte{'%', hex[c>>4], hex[c&15]})
		} else {
			out.WriteByte(c)
		}
	}
	return out.String()
}

// grpcFilterReply gives a filter's answer to a gRPC call the form that the client knows. One that has grpc-status already keeps it, with its
// message. The body of an answer is its message if it is short and lies in memory.
func (r *run) grpcFilterReply() {
	x := r.x
	code, message := grpcStatus(x.Resp.Status), ""
	if own, ok := x.Resp.Fields.Lookup(grpcStatusName); ok {
		n, err := strconv.ParseUint(own, 10, 8)
		if err != nil || n == 0 || n > 16 { // 0 would be a success without a message
			n = uint64(grpcUnknown)
		}
		code = grpcCode(n)
		escaped, _ := x.Resp.Fields.Lookup(grpcMessageName)
		grpcReply(x, code, "")
		if escaped != "" {
			x.Resp.Fields.Add(grpcMessageName, escaped)
		}
	} else {
		if x.RespBody != nil {
			if n, whole := ready(x.RespBody); whole && n <= grpcMostMessage {
				text := make([]byte, n)
				n, _ = x.RespBody.Read(text)
				message = strings.TrimSpace(string(text[:n]))
			}
		}
		grpcReply(x, code, message)
	}
	if x.RespBody != nil {
		_ = x.RespBody.Close()
	}
	x.RespBody = exchange.NoBody
}

// failGRPC answers a gRPC call that failed before the head of its response was out.
func (r *run) failGRPC(fault *exchange.Fault) {
	r.x.Resp.Fields = r.x.Resp.Fields[:0]
	grpcReply(r.x, grpcFault(r.x, fault, time.Now()), string(fault.Kind))
	r.outgoing()
	if r.w.Respond(&r.x.Resp, -1) == nil {
		_ = r.w.Finish(nil)
	}
}

// endGRPC ends a gRPC call whose response was under way with a status in its trailers, in place of a reset that would hide it. It returns
// false when the response cannot be ended so.
func (r *run) endGRPC(fault *exchange.Fault) bool {
	if fault.Origin == exchange.SideClient || r.x.Resp.Status != 200 || !isGRPC(r.x.Resp.Fields.Get(exchange.ContentType)) {
		return false
	}
	var trailers exchange.Fields
	return r.w.Finish(appendGRPCStatus(trailers, grpcFault(r.x, fault, time.Now()), string(fault.Kind))) == nil
}
