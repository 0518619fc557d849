package headers

import (
	"context"
	"fmt"
	"strings"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/filters/internal/check"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// modifier is a compiled Config. No name stands in it twice, so that the order of the three does not matter.
type modifier struct {
	remove []string
	set    []Field
	add    []exchange.Field
}

func compile(c Config, request bool) (modifier, error) {
	m := modifier{}
	actions := map[string]string{}
	claim := func(action, name string) error {
		if err := checkName(name, request); err != nil {
			return fmt.Errorf("%s: %w", action, err)
		}
		key := strings.ToLower(name)
		if other, taken := actions[key]; taken {
			// "Filters specifying multiple actions of the same or different type for any one header name are invalid."
			return fmt.Errorf("%s: field %q already stands under %s: only one action per field is allowed, join several values with commas", action, name, other)
		}
		actions[key] = action
		return nil
	}
	for _, f := range c.Set {
		value, err := cleanValue("set", f)
		if err != nil {
			return m, err
		}
		if err := claim("set", f.Name); err != nil {
			return m, err
		}
		m.set = append(m.set, Field{Name: f.Name, Value: value})
	}
	for _, f := range c.Add {
		value, err := cleanValue("add", f)
		if err != nil {
			return m, err
		}
		if err := claim("add", f.Name); err != nil {
			return m, err
		}
		m.add = append(m.add, exchange.Field{Name: f.Name, Value: value, ID: exchange.IDOf(f.Name)})
	}
	for _, name := range c.Remove {
		if err := claim("remove", name); err != nil {
			return m, err
		}
		m.remove = append(m.remove, name)
	}
	return m, nil
}

// cleanValue checks a value and takes away the blanks around it, which are not part of it (RFC 9110 5.5) and which HTTP/2 forbids
// (RFC 9113 8.2.1).
func cleanValue(action string, f Field) (string, error) {
	if err := check.FieldValue(f.Value); err != nil {
		return "", fmt.Errorf("%s: field %q: %w", action, f.Name, err)
	}
	return strings.Trim(f.Value, " \t"), nil
}

// checkName refuses, besides what is no field name, the fields that the gateway itself writes: they frame the message or belong
// to one connection (RFC 9110 7.6.1), and changing them could only break the exchange.
func checkName(name string, request bool) error {
	if err := check.FieldName(name); err != nil {
		return err
	}
	id := exchange.IDOf(name)
	switch {
	case id == exchange.Host && request:
		return fmt.Errorf("%q cannot be changed by a header modifier: use a URLRewrite filter with hostname", name)
	case id.HopByHop():
		return fmt.Errorf("%q belongs to one connection, and the gateway writes it itself: leave it out", name)
	case id == exchange.ContentLength || id == exchange.Expect && request:
		return fmt.Errorf("%q frames the message, and the gateway writes it itself: leave it out", name)
	}
	return nil
}

func (m *modifier) apply(f *exchange.Fields) {
	for _, name := range m.remove {
		f.Del(name)
	}
	for _, set := range m.set {
		f.Set(set.Name, set.Value)
	}
	for _, add := range m.add {
		if add.ID == exchange.Cookie && addCookie(*f, add.Value) {
			continue
		}
		*f = append(*f, add)
	}
}

// addCookie joins a cookie to those of the request. A second line would be equal to ", " for many servers, which is no separator
// between cookies (RFC 6265 5.4).
func addCookie(f exchange.Fields, value string) bool {
	for i := range f {
		if f[i].ID == exchange.Cookie {
			f[i].Value += "; " + value
			return true
		}
	}
	return false
}

type requestFilter struct{ modifier }

// OnRequest changes the request's fields.
func (f requestFilter) OnRequest(_ context.Context, x *exchange.Exchange) (filters.Action, error) {
	f.apply(&x.Req.Fields)
	return filters.Continue, nil
}

// OnResponse does nothing.
func (requestFilter) OnResponse(*exchange.Exchange) {}

type responseFilter struct{ modifier }

// OnRequest does nothing.
func (responseFilter) OnRequest(context.Context, *exchange.Exchange) (filters.Action, error) {
	return filters.Continue, nil
}

// OnResponse changes the response's fields.
func (f responseFilter) OnResponse(x *exchange.Exchange) { f.apply(&x.Resp.Fields) }
