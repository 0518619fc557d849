// Package check holds the small syntax rules that several filters apply to their settings and to what clients send. Everything in
// it is a pure function of a string.
package check

import (
	"fmt"
	"strings"
)

// maxHostname is the longest hostname that Gateway API and DNS allow (RFC 1035 2.3.4).
const maxHostname = 253

// Token reports whether s is a token (RFC 9110 5.6.2): a method or a field name.
func Token(s string) bool {
	for i := range len(s) {
		c := s[i]
		alphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alphanumeric && (c >= 0x80 || strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0) {
			return false
		}
	}
	return s != ""
}

// FieldName returns what is wrong with a field name, nil when nothing is.
func FieldName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("a field name is empty")
	case name[0] == ':':
		return fmt.Errorf("%q is a pseudo-header, which no filter can change", name)
	case !Token(name):
		return fmt.Errorf("%q is not a field name: only letters, digits and !#$%%&'*+-.^_`|~ may stand in one", name)
	}
	return nil
}

// FieldValue returns what is wrong with a field value (RFC 9110 5.5): control characters but for the tab would let it end its
// line.
func FieldValue(value string) error {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return fmt.Errorf("the value holds the control character %q", value[i:i+1])
		}
	}
	return nil
}

// Hostname returns what is wrong with a Gateway API PreciseHostname: lower case labels of letters, digits and inner hyphens.
func Hostname(host string) error {
	if len(host) > maxHostname {
		return fmt.Errorf("hostname %q is longer than %d bytes", host, maxHostname)
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return fmt.Errorf("hostname %q is not valid: it must be lower case labels of letters, digits and inner hyphens, joined by dots", host)
		}
	}
	return nil
}
