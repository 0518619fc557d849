package cors

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/filters/internal/check"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// defaultMaxAge is HTTPCORSFilter.maxAge's default, in seconds.
const defaultMaxAge = 5

// policy is a compiled Config. Lists are joined once; "" leaves the field out.
type policy struct {
	// all says that every origin is allowed; origins is empty then.
	all         bool
	origins     []origin
	credentials bool
	methods     string
	headers     string
	expose      string
	maxAge      string
}

func compile(c Config) (policy, error) {
	p := policy{credentials: c.AllowCredentials}
	for _, s := range c.AllowOrigins {
		if s == wildcard {
			p.all = true
			continue
		}
		o, err := parsePattern(s)
		if err != nil {
			return p, fmt.Errorf("allowOrigins: %w", err)
		}
		p.origins = append(p.origins, o)
	}
	if p.all && len(p.origins) > 0 {
		return p, errors.New(`allowOrigins: "*" stands beside other origins: leave one of them out`)
	}
	var err error
	if p.methods, err = join("allowMethods", c.AllowMethods); err != nil {
		return p, err
	}
	if p.headers, err = join("allowHeaders", c.AllowHeaders); err != nil {
		return p, err
	}
	if slices.Contains(c.ExposeHeaders, wildcard) {
		c.ExposeHeaders = []string{wildcard}
	}
	if p.expose, err = join("exposeHeaders", c.ExposeHeaders); err != nil {
		return p, err
	}
	if c.MaxAge < 0 {
		return p, fmt.Errorf("maxAge %d is negative", c.MaxAge)
	}
	if c.MaxAge == 0 {
		c.MaxAge = defaultMaxAge
	}
	p.maxAge = strconv.Itoa(int(c.MaxAge))
	return p, nil
}

func join(list string, names []string) (string, error) {
	for _, name := range names {
		if !check.Token(name) {
			return "", fmt.Errorf("%s: %q is not a name", list, name)
		}
		if name == wildcard && len(names) > 1 {
			return "", fmt.Errorf(`%s: "*" stands beside other names: leave one of them out`, list)
		}
	}
	return strings.Join(names, ", "), nil
}

// allows returns the Origin of the request when the policy covers it, else "".
func (p *policy) allows(value string) string {
	if p.all {
		if reflectable(value) {
			return value
		}
		return ""
	}
	o, ok := parseOrigin(value)
	if ok && slices.ContainsFunc(p.origins, func(pattern origin) bool { return pattern.matches(o) }) {
		return value
	}
	return ""
}

// constant reports whether the answer is the same for every origin. Such answers say "*" and need no Vary, which shared caches
// are grateful for (Fetch, "CORS protocol and HTTP caches").
func (p *policy) constant() bool { return p.all && !p.credentials }

// decision is what the request side found out, kept for the response side: by then another filter may have changed the request.
type decision struct {
	// origin is what Access-Control-Allow-Origin may name; "" allows nobody.
	origin string
	// answered says that the response is the filter's own, to a preflight request.
	answered bool
}

type filter struct {
	policy
	slot filters.Slot[decision]
}

// OnRequest answers preflight requests, whoever asks; the answer to an origin that is not allowed says nothing of CORS, so that the
// browser refuses the request that it asked for. All other requests go on, since CORS protects responses and not requests.
func (f *filter) OnRequest(_ context.Context, x *exchange.Exchange) (filters.Action, error) {
	value, cors := x.Req.Fields.Lookup("Origin")
	if !cors {
		return filters.Continue, nil
	}
	d := decision{origin: f.allows(value)}
	d.answered = x.Req.Method == "OPTIONS" && x.Req.Fields.Has(exchange.AccessControlRequestMethod)
	f.slot.Set(x, d)
	if !d.answered {
		return filters.Continue, nil
	}
	x.Resp = exchange.Response{Status: 204}
	x.RespBody = exchange.NoBody
	f.share(&x.Resp.Fields, d.origin)
	if d.origin != "" {
		f.preflight(&x.Resp.Fields, x.Req.Fields)
	}
	return filters.Reply, nil
}

// OnResponse replaces what the backend said about CORS by what the policy says.
func (f *filter) OnResponse(x *exchange.Exchange) {
	d, _ := f.slot.Get(x)
	if d.answered {
		return
	}
	x.Resp.Fields = x.Resp.Fields.Filter(func(line *exchange.Field) bool { return !owned(line.ID) })
	f.share(&x.Resp.Fields, d.origin)
}

// owned are the response fields that only the policy writes.
func owned(id exchange.ID) bool {
	switch id {
	case exchange.AccessControlAllowCredentials, exchange.AccessControlAllowHeaders, exchange.AccessControlAllowMethods,
		exchange.AccessControlAllowOrigin, exchange.AccessControlExposeHeaders, exchange.AccessControlMaxAge:
		return true
	}
	return false
}

// share says who may read the response.
func (f *filter) share(resp *exchange.Fields, origin string) {
	switch {
	case f.constant():
		// Said to everyone, also where no Origin came: a cache may hand this response to a page of another origin.
		origin = wildcard
	case !resp.HasToken(exchange.Vary, "Origin") && !resp.HasToken(exchange.Vary, "*"):
		resp.Add("Vary", "Origin")
	}
	if origin == "" {
		return
	}
	expose := f.expose
	if expose == wildcard && f.credentials {
		expose = namesOf(*resp)
	}
	resp.Add("Access-Control-Allow-Origin", origin)
	if f.credentials {
		resp.Add("Access-Control-Allow-Credentials", "true")
	}
	if expose != "" {
		resp.Add("Access-Control-Expose-Headers", expose)
	}
}

// preflight says what the request asked for may do. For "*" it repeats what was asked: the wildcard itself would not cover
// Authorization (Fetch 4.8), and means nothing with credentials.
func (f *filter) preflight(resp *exchange.Fields, req exchange.Fields) {
	methods, headers := f.methods, f.headers
	if methods == wildcard {
		methods = asked(req, "Access-Control-Request-Method")
	}
	if headers == wildcard {
		headers = asked(req, "Access-Control-Request-Headers")
	}
	if methods != "" {
		resp.Add("Access-Control-Allow-Methods", methods)
	}
	if headers != "" {
		resp.Add("Access-Control-Allow-Headers", headers)
	}
	resp.Add("Access-Control-Max-Age", f.maxAge)
}

// asked returns a list of names from the request, "" when it is anything else.
func asked(req exchange.Fields, name string) string {
	value, _ := req.Lookup(name)
	for part := range strings.SplitSeq(value, ",") {
		if !check.Token(strings.Trim(part, " \t")) {
			return ""
		}
	}
	return value
}

// namesOf lists the names in a response, each once: exposeHeaders "*" with credentials, where the browser would take "*" for a
// field of that name.
func namesOf(resp exchange.Fields) string {
	var names []string
	for _, line := range resp {
		if !slices.ContainsFunc(names, func(seen string) bool { return strings.EqualFold(seen, line.Name) }) {
			names = append(names, line.Name)
		}
	}
	return strings.Join(names, ", ")
}
