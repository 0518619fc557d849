package provision

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// The labels that every object of a Gateway carries.
const (
	// managedByLabel finds what a controller made. Its value is made of the controller's name.
	managedByLabel = "gatehouse.dev/managed-by"
	// gatewayLabel selects the Pods of a Gateway. Its value is the name of the Gateway's objects, which no other Gateway of the namespace
	// has, while a long name's value of nameLabel could be another's name.
	gatewayLabel = "gatehouse.dev/gateway"
	// nameLabel and classLabel are Gateway API's words (GEP-1762).
	nameLabel  = "gateway.networking.k8s.io/gateway-name"
	classLabel = "gateway.networking.k8s.io/gateway-class-name"
	// appLabel is Kubernetes' recommended word for what runs.
	appLabel = "app.kubernetes.io/name"
)

// longest is how long a DNS-1035 label (the name of a Service) and the value of a label may be.
const longest = 63

// namePrefix tells our objects from a user's of the Gateway's own name, and gives a name a letter to begin with.
const namePrefix = "gatehouse-"

// objectName returns the name of a Gateway's objects: a DNS-1035 label of at most 63 characters, which a Service needs. The namespace is the
// Gateway's, so only names within one namespace could meet.
//
// The Gateway's name is kept where it fits. Where it does not (dots, more than 53 characters), a readable part is kept and a hash of the whole
// added. A name that looks as if it had been made so is made anew, so that nobody's name is another's made one:
//
//	web                      gatehouse-web
//	1.shop                   gatehouse-1-shop-x5da2c0bb3e
//	1-shop-x5da2c0bb3e       gatehouse-1-shop-x5da2c0bb3e-x93f0f1e6c7
func objectName(gateway string) string {
	if name := namePrefix + gateway; len(name) <= longest && !strings.Contains(name, ".") && !looksCut(name) {
		return name
	}
	return cut(namePrefix+strings.ReplaceAll(gateway, ".", "-"), gateway)
}

// labelValue returns a name as the value of a label. One name has one value; see gatewayLabel for why two names may have the same.
func labelValue(name string) string {
	if len(name) <= longest {
		return name
	}
	return cut(name, name)
}

// hashMark stands before a hash's hexadecimal digits, hashDigits how many these are: 40 bits, within one namespace.
const (
	hashMark   = "-x"
	hashDigits = 10
)

// cut returns as much of the readable name as there is room for, and a hash of the whole.
func cut(readable, whole string) string {
	sum := sha256.Sum256([]byte(whole))
	readable = readable[:min(len(readable), longest-len(hashMark)-hashDigits)]
	return strings.TrimRight(readable, "-.") + hashMark + hex.EncodeToString(sum[:])[:hashDigits]
}

// looksCut reports whether a name ends as cut's do.
func looksCut(name string) bool {
	at := len(name) - hashDigits
	return at > len(hashMark) && strings.HasSuffix(name[:at], hashMark) && strings.Trim(name[at:], "0123456789abcdef") == ""
}

// managedBy returns the value of managedByLabel for a controller's name, which is a domain, a slash and a path: "gatehouse.dev/controller" gives
// "gatehouse.dev_controller". A domain has no underscore, so two controllers' values differ.
func managedBy(controller string) string {
	value := strings.Replace(controller, "/", "_", 1)
	legal := strings.IndexFunc(value, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	}) < 0
	if legal && len(value) <= longest && strings.Trim(value[len(value)-1:], "-_.") != "" {
		return value
	}
	domain, _, _ := strings.Cut(controller, "/")
	return cut(domain, controller)
}
