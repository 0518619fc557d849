package extauthz

import (
	"fmt"
	"strings"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// httpQuestion is the request that the server gets: the client's method, host and path, its Authorization, and the fields that the settings
// name (Gateway API: HTTPAuthConfig.allowedHeaders). The path is the normalised one, which is what the backend will get.
func (f *filter) httpQuestion(x *exchange.Exchange) (*exchange.Head, error) {
	head := &exchange.Head{Method: x.Req.Method, Scheme: x.Req.Scheme, Authority: x.Req.Authority}
	if x.Req.Protocol != "" {
		head.Method = "GET" // an extended CONNECT is an upgrade of a GET (RFC 8441 5)
	}
	switch path := x.Req.ForwardTarget(); {
	case f.prefix == "":
		head.Target = path
	case x.Req.Path() == "*": // of OPTIONS; it has no path
		head.Target = f.prefix
	default:
		head.Target = f.prefix + path
	}
	if err := head.Normalize(); err != nil {
		return nil, err
	}
	for i := range x.Req.Fields {
		line := &x.Req.Fields[i]
		if line.ID == exchange.Authorization || mayPass(line.Name) && listed(f.allowed, line.Name) {
			head.Fields = append(head.Fields, *line)
		}
	}
	return head, nil
}

// httpAnswer reads the answer: 200 lets the request go on, anything else up to 499 is for the client. A status of 500 and more says that the
// server failed.
func (f *filter) httpAnswer(call *exchange.Call) (verdict, error) {
	status := call.Answer.Status
	switch {
	case status < 200 || status > 499:
		return verdict{}, fmt.Errorf("the authorization server answered %d", status)
	case status != 200:
		return f.httpDenial(call), nil
	}
	v := verdict{allow: true}
	seen := map[string]bool{}
	for _, line := range call.Answer.Fields {
		if len(f.returned) > 0 && !listed(f.returned, line.Name) || len(f.returned) == 0 && speaksOfAnswer(line.Name) || !mayPass(line.Name) {
			continue
		}
		if !validValue(line.Value) {
			return verdict{}, fmt.Errorf("the authorization server's field %s has a value that cannot be sent", line.Name)
		}
		how := replace
		name := strings.ToLower(line.Name)
		if seen[name] {
			how = add
		}
		seen[name] = true
		v.request = append(v.request, change{line.Name, line.Value, how})
	}
	return v, nil
}

// httpDenial passes the answer on. One whose status would look like the backend's success becomes 403.
func (f *filter) httpDenial(call *exchange.Call) verdict {
	v := verdict{body: call.AnswerBody, denial: exchange.Response{Status: call.Answer.Status}}
	if v.denial.Status < 300 {
		v.denial.Status = 403
	}
	for _, line := range call.Answer.Fields {
		if mayPass(line.Name) && line.ID != exchange.Date {
			v.denial.Fields = append(v.denial.Fields, line)
		}
	}
	return v
}
