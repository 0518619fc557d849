package extauthz

import (
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// This file is Envoy's ext_authz protocol, version 3: one unary call. Framing is that of gRPC over HTTP/2:
//
//	message = flag length bytes     flag 0: not compressed; length of 4 bytes, big endian
//
// and the status of the call stands in the trailers, or in the head when the answer has no message.

const (
	checkPath   = "/envoy.service.auth.v3.Authorization/Check"
	messageHead = 5
)

// grpcQuestion is the CheckRequest and the head that it goes under.
func (f *filter) grpcQuestion(x *exchange.Exchange, body []byte) (*exchange.Head, []byte, error) {
	message := make([]byte, messageHead, 1024+len(body))
	message, err := proto.MarshalOptions{}.MarshalAppend(message, f.checkRequest(x, body))
	if err != nil {
		return nil, nil, fmt.Errorf("the question does not marshal: %w", err)
	}
	binary.BigEndian.PutUint32(message[1:messageHead], uint32(len(message)-messageHead))
	head := &exchange.Head{Method: "POST", Scheme: "http", Target: checkPath}
	if err := head.Normalize(); err != nil {
		return nil, nil, err
	}
	head.Fields.AddID(exchange.TE, "TE", "trailers")
	head.Fields.AddID(exchange.ContentType, "Content-Type", "application/grpc")
	head.Fields.Add("grpc-timeout", strconv.FormatInt(exchange.DefaultCallTimeout.Milliseconds(), 10)+"m")
	return head, message, nil
}

// checkRequest describes the request. Text that is no UTF-8, which protocol buffers cannot carry, shows a '!' in place of what is wrong.
func (f *filter) checkRequest(x *exchange.Exchange, body []byte) *authv3.CheckRequest {
	req := &x.Req
	http := &authv3.AttributeContext_HttpRequest{
		Id:       req.Fields.Get(exchange.XRequestID),
		Method:   req.Method,
		Headers:  f.grpcHeaders(req),
		Path:     text(req.ForwardTarget()),
		Host:     req.Authority,
		Scheme:   req.Scheme,
		Size:     x.ReqBody.Length(),
		Protocol: x.Peer.Proto.String(),
	}
	if utf8.Valid(body) {
		http.Body = string(body)
	} else {
		http.RawBody = body
	}
	context := &authv3.AttributeContext{
		Source:      &authv3.AttributeContext_Peer{Address: address(x.Peer.Remote.Addr().Unmap().String(), x.Peer.Remote.Port())},
		Destination: &authv3.AttributeContext_Peer{Address: address(x.Peer.Local.Addr().Unmap().String(), x.Peer.Local.Port())},
		Request:     &authv3.AttributeContext_Request{Time: timestamppb.New(x.Start), Http: http},
	}
	if x.Peer.TLS != nil {
		context.TlsSession = &authv3.AttributeContext_TLSSession{Sni: text(x.Peer.TLS.ServerName)}
		context.Source.Principal = principal(x.Peer.TLS)
	}
	return &authv3.CheckRequest{Attributes: context}
}

// principal names a client by its certificate, if that was verified: the first URI in it, or else the first DNS name, or else the subject.
func principal(info *exchange.TLSInfo) string {
	if !info.Verified() || len(info.PeerCertificates) == 0 {
		return ""
	}
	leaf, err := x509.ParseCertificate(info.PeerCertificates[0])
	switch {
	case err != nil:
		return ""
	case len(leaf.URIs) > 0:
		return text(leaf.URIs[0].String())
	case len(leaf.DNSNames) > 0:
		return text(leaf.DNSNames[0])
	}
	return text(leaf.Subject.String())
}

func address(ip string, port uint16) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: ip, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

// grpcHeaders are the client's fields that the settings allow, in lower case, several lines of one name joined with a comma, and the pseudo-headers
// where everything is allowed.
func (f *filter) grpcHeaders(req *exchange.Head) map[string]string {
	headers := make(map[string]string, len(req.Fields)+4)
	if len(f.allowed) == 0 {
		headers[":authority"], headers[":method"], headers[":path"], headers[":scheme"] =
			req.Authority, req.Method, text(req.ForwardTarget()), req.Scheme
	}
	for i := range req.Fields {
		line := &req.Fields[i]
		if !mayPass(line.Name) || len(f.allowed) > 0 && !listed(f.allowed, line.Name) {
			continue
		}
		name, value := strings.ToLower(line.Name), text(line.Value)
		if before, ok := headers[name]; ok {
			separator := ","
			if line.ID == exchange.Cookie {
				separator = "; " // RFC 9113 8.2.3
			}
			value = before + separator + value
		}
		headers[name] = value
	}
	return headers
}

func text(s string) string { return strings.ToValidUTF8(s, "!") }

// grpcAnswer reads the answer to a Check.
func grpcAnswer(call *exchange.Call) (verdict, error) {
	message, err := grpcMessage(call)
	if err != nil {
		return verdict{}, err
	}
	answer := &authv3.CheckResponse{}
	if err := proto.Unmarshal(message, answer); err != nil {
		return verdict{}, fmt.Errorf("the authorization server's CheckResponse cannot be read: %w", err)
	}
	return decide(answer)
}

// grpcMessage takes the one message out of a call that succeeded.
func grpcMessage(call *exchange.Call) ([]byte, error) {
	if call.Answer.Status != 200 {
		return nil, fmt.Errorf("the authorization server answered %d to a gRPC call", call.Answer.Status)
	}
	status, ok := call.Trailers.Lookup("grpc-status")
	explanation, _ := call.Trailers.Lookup("grpc-message")
	if !ok {
		status, ok = call.Answer.Fields.Lookup("grpc-status")
		explanation, _ = call.Answer.Fields.Lookup("grpc-message")
	}
	if !ok || status != "0" {
		return nil, fmt.Errorf("the authorization server ended the call with grpc-status %q %q", status, explanation)
	}
	body := call.AnswerBody
	switch {
	case len(body) < messageHead || uint64(len(body)-messageHead) != uint64(binary.BigEndian.Uint32(body[1:messageHead])):
		return nil, errors.New("the authorization server's answer is not one gRPC message")
	case body[0] != 0:
		return nil, errors.New("the authorization server's answer is compressed, which was not asked for")
	}
	return body[messageHead:], nil
}

// decide says what a CheckResponse means. Only one that says so plainly lets the request go on.
func decide(answer *authv3.CheckResponse) (verdict, error) {
	if answer.GetErrorResponse() != nil {
		return verdict{}, errors.New("the authorization server says that it failed")
	}
	if denied := answer.GetDeniedResponse(); denied != nil {
		return deny(denied)
	}
	if answer.GetStatus().GetCode() != 0 {
		return deny(nil)
	}
	ok := answer.GetOkResponse()
	if ok == nil && answer.GetStatus() == nil {
		return verdict{}, errors.New("the authorization server's CheckResponse is empty")
	}
	if len(ok.GetQueryParametersToSet()) > 0 || len(ok.GetQueryParametersToRemove()) > 0 {
		return verdict{}, errors.New("the authorization server wants the query changed, which this gateway does not do")
	}
	v := verdict{allow: true}
	var err error
	if v.request, err = changes(ok.GetHeaders()); err != nil {
		return verdict{}, err
	}
	if v.response, err = changes(ok.GetResponseHeadersToAdd()); err != nil {
		return verdict{}, err
	}
	for _, name := range ok.GetHeadersToRemove() {
		if mayPass(name) { // those that may not be removed are ignored (OkHttpResponse.headers_to_remove)
			v.remove = append(v.remove, name)
		}
	}
	return v, nil
}

// deny makes the client's answer; without anything said it is 403.
func deny(denied *authv3.DeniedHttpResponse) (verdict, error) {
	v := verdict{denial: exchange.Response{Status: 403}, body: []byte(denied.GetBody())}
	if status := int(denied.GetStatus().GetCode()); status >= 200 && status <= 599 {
		v.denial.Status = status
	}
	list, err := changes(denied.GetHeaders())
	if err != nil {
		return verdict{}, err
	}
	apply(&v.denial.Fields, list)
	return v, nil
}

// changes reads what is to be done to fields. A pseudo-header, Host and what frames a message are passed over, as Envoy does; a line that
// cannot be sent makes the answer unusable.
func changes(list []*corev3.HeaderValueOption) ([]change, error) {
	var out []change
	for _, option := range list {
		name, value := option.GetHeader().GetKey(), option.GetHeader().GetValue()
		if value == "" {
			value = string(option.GetHeader().GetRawValue())
		}
		switch {
		case strings.HasPrefix(name, ":") || isToken(name) && !mayPass(name):
			continue
		case !validChange(name, value):
			return nil, fmt.Errorf("the authorization server's field %q cannot be sent", name)
		}
		out = append(out, change{name, value, how(option)})
	}
	return out, nil
}

// how reads append, whose default is false in this protocol, and append_action where append is not said.
func how(option *corev3.HeaderValueOption) action {
	//lint:ignore SA1019 servers of the protocol still say it
	if said := option.GetAppend(); said != nil {
		if said.GetValue() {
			return add
		}
		return replace
	}
	switch option.GetAppendAction() {
	case corev3.HeaderValueOption_ADD_IF_ABSENT:
		return addNew
	case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
		return overwrite
	}
	return replace
}
