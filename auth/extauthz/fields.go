package extauthz

import (
	"strings"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// change is what the authorization server wants done to one field of a head.
type change struct {
	name, value string
	how         action
}

// action is how a change treats field lines of its name that are there already.
type action uint8

const (
	replace   action = iota // they go
	add                     // they stay
	addNew                  // the change is made only where there are none
	overwrite               // the change is made only where there are some, which go
)

// apply makes the changes in order. A field that is replaced goes in every spelling, because origins differ in which they take for one name.
func apply(fields *exchange.Fields, changes []change) {
	for _, c := range changes {
		present := false
		for i := range *fields {
			present = present || sameName((*fields)[i].Name, c.name)
		}
		switch {
		case c.how == addNew && present, c.how == overwrite && !present:
			continue
		case c.how != add:
			remove(fields, c.name)
		}
		fields.Add(c.name, c.value)
	}
}

// remove removes every field line of a name, in every spelling.
func remove(fields *exchange.Fields, name string) {
	*fields = fields.Filter(func(f *exchange.Field) bool { return !sameName(f.Name, name) })
}

// sameName compares names as a lax origin does: without regard to case, and '_' and '.' are '-' (CGI, RFC 3875 4.1.18, folds them into one).
func sameName(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if fold(a[i]) != fold(b[i]) {
			return false
		}
	}
	return true
}

func fold(c byte) byte {
	switch {
	case c == '_' || c == '.':
		return '-'
	case 'A' <= c && c <= 'Z':
		return c | 0x20
	}
	return c
}

func listed(list []string, name string) bool {
	for _, one := range list {
		if strings.EqualFold(one, name) {
			return true
		}
	}
	return false
}

// mayPass reports whether a field may be taken over from one message into another: one that neither frames a message, nor belongs to a
// connection, nor says whom the request is for.
func mayPass(name string) bool {
	id := exchange.IDOf(name)
	switch id {
	case exchange.Host, exchange.ContentLength, exchange.TransferEncoding, exchange.TE, exchange.Trailer, exchange.Expect, exchange.Upgrade,
		exchange.HTTP2Settings:
		return false
	}
	return !id.HopByHop() && isToken(name)
}

// speaksOfAnswer reports whether a field of an answer is about that answer, and so means nothing in the request to the backend.
func speaksOfAnswer(name string) bool {
	switch exchange.IDOf(name) {
	case exchange.Date, exchange.Server, exchange.AltSvc, exchange.Vary, exchange.Via:
		return true
	}
	const prefix = "content-"
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}

// validChange reports whether the server may make a change, to a field line that can be sent.
func validChange(name, value string) bool { return mayPass(name) && validValue(value) }

// isToken is RFC 9110 5.6.2. A pseudo-header is none.
func isToken(name string) bool {
	for i := range len(name) {
		c := name[i]
		alphanumeric := 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9'
		if !alphanumeric && (c >= 0x80 || strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0) {
			return false
		}
	}
	return name != ""
}

// validValue is RFC 9110 5.5: no control characters but the tab, and none at either end.
func validValue(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return value == strings.Trim(value, " \t")
}
