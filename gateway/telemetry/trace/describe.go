package trace

import (
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	oteltrace "go.opentelemetry.io/otel/trace"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

const (
	// otherMethod is the conventions' word for a method that is not a known one.
	otherMethod = "_OTHER"
	// maxText bounds a span attribute.
	maxText = 1024
)

// describe gives a span its name, attributes and status by the HTTP semantic conventions for servers, and what only a gateway knows
// under "gatehouse.". The query is left out: it carries secrets.
func (t *Tracer) describe(span oteltrace.Span, x *exchange.Exchange, authority string) {
	head := exchange.Head{Authority: authority}
	path, _, _ := strings.Cut(x.Req.Target, "?")
	a := append(make([]attribute.KeyValue, 0, 24),
		semconv.HTTPRequestMethodKey.String(knownMethod(x.Req.Method)),
		semconv.URLScheme(text(x.Req.Scheme)),
		semconv.URLPath(text(path)),
		semconv.ServerAddress(text(head.Host())),
		semconv.NetworkProtocolName("http"),
		semconv.HTTPRequestBodySize(int(x.BytesIn)),
		semconv.HTTPResponseBodySize(int(x.BytesOut)),
	)
	if knownMethod(x.Req.Method) == otherMethod {
		a = append(a, semconv.HTTPRequestMethodOriginal(text(x.Req.Method)))
	}
	if port, err := strconv.ParseUint(head.AuthorityPort(), 10, 16); err == nil {
		a = append(a, semconv.ServerPort(int(port)))
	}
	if version := protocolVersion(x.Peer.Proto); version != "" {
		a = append(a, semconv.NetworkProtocolVersion(version))
	}
	if remote := x.Peer.Remote; remote.IsValid() {
		address := remote.Addr().Unmap().String()
		a = append(a, semconv.ClientAddress(address), semconv.NetworkPeerAddress(address), semconv.NetworkPeerPort(int(remote.Port())))
	}
	if agent := x.Req.Fields.Get(exchange.UserAgent); agent != "" {
		a = append(a, semconv.UserAgentOriginal(text(agent)))
	}
	if x.Resp.Status > 0 {
		a = append(a, semconv.HTTPResponseStatusCode(x.Resp.Status))
	}
	name := methodName(x.Req.Method)
	if x.Route != nil {
		route := text(x.Route.Route)
		name += " " + route
		a = append(a, semconv.HTTPRoute(route), attribute.String("gatehouse.rule", text(x.Route.Rule)))
	}
	span.SetName(t.nameOr(name))
	span.SetAttributes(t.appendOwn(appendOutcome(a, x), x.Req.Fields)...)
	// A gRPC call that failed is answered 200.
	if x.Resp.Status >= 500 || x.Fault != nil && x.Fault.Status >= 500 {
		span.SetStatus(codes.Error, faultKind(x))
	}
}

// appendOutcome adds where the exchange went and why it failed.
func appendOutcome(a []attribute.KeyValue, x *exchange.Exchange) []attribute.KeyValue {
	if x.Cluster != "" {
		a = append(a,
			attribute.String("gatehouse.cluster", text(x.Cluster)),
			attribute.String("gatehouse.endpoint", text(x.Endpoint)),
			attribute.Int("gatehouse.attempts", x.Attempts))
	}
	switch kind := faultKind(x); {
	case kind != "":
		a = append(a, semconv.ErrorTypeKey.String(text(kind)))
	case x.Resp.Status >= 500:
		a = append(a, semconv.ErrorTypeKey.String(strconv.Itoa(x.Resp.Status)))
	}
	return a
}

func faultKind(x *exchange.Exchange) string {
	if x.Fault == nil {
		return ""
	}
	return string(x.Fault.Kind)
}

// knownMethod keeps the attribute to the methods of RFC 9110, RFC 5789 and the QUERY method.
func knownMethod(method string) string {
	switch method {
	case "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE":
		return strings.Clone(method)
	}
	return otherMethod
}

// methodName is the method in a span's name: "HTTP" for one that is not known.
func methodName(method string) string {
	if known := knownMethod(method); known != otherMethod {
		return known
	}
	return "HTTP"
}

func protocolVersion(p exchange.Proto) string {
	switch p {
	case exchange.HTTP10:
		return "1.0"
	case exchange.HTTP11:
		return "1.1"
	case exchange.HTTP2:
		return "2"
	case exchange.HTTP3:
		return "3"
	}
	return ""
}

// text makes a string fit for a span: cut, with a life of its own, and valid UTF-8, without which the whole batch of spans would fail
// to encode.
func text(s string) string {
	s = s[:min(len(s), maxText)]
	if valid := strings.ToValidUTF8(s, "\uFFFD"); valid != s {
		return valid
	}
	return strings.Clone(s)
}
