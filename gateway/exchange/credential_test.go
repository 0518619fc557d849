package exchange

import "testing"

func TestNamesCredential(t *testing.T) {
	for _, name := range []string{
		"authorization", "Authorization", "PROXY_AUTHORIZATION", "Cookie", "set.cookie", "X-Api-Key", "x_api_key", "X-APIKEY", "x-auth-token",
		"client_secret", "password",
	} {
		if !NamesCredential(name) {
			t.Errorf("%s is shown", name)
		}
	}
	for _, name := range []string{"", "x-env", "accept", "content-type", "author", "key", "api"} {
		if NamesCredential(name) {
			t.Errorf("%s is hidden", name)
		}
	}
}
