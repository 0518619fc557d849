package exchange

import (
	"slices"
	"strings"
)

// credentialWords are what the names of fields and parameters that carry credentials hold: authorization, proxy-authorization, cookie,
// set-cookie, x-api-key, x-auth-token, ... A value too many that is hidden costs less than one too few.
var credentialWords = []string{"authorization", "cookie", "api-key", "apikey", "token", "secret", "password", "credential"}

// NamesCredential reports whether a field or parameter of this name carries a credential, so that its value must not be shown. It takes
// '_' and '.' for '-' and ignores case.
func NamesCredential(name string) bool {
	name = strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(name))
	return slices.ContainsFunc(credentialWords, func(word string) bool { return strings.Contains(name, word) })
}
