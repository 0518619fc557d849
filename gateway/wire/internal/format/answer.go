package format

import (
	"encoding/json/v2"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"

	"gatehouse.dev/gatehouse/gateway/config"
)

// TypeApplied is the type URL of what an acknowledgement says of the things that do not serve.
const TypeApplied = "gatehouse.dev/wire.v1.Applied"

const (
	// maxReason bounds why a configuration was refused, in bytes.
	maxReason = 8 << 10
	// maxProblem bounds what is said of one listener or cluster, in bytes.
	maxProblem = 1 << 10
	// maxProblems bounds the listeners, and the clusters, that are named in an answer.
	maxProblems = 1000
	// maxName bounds the name of one of them, in bytes: those of the longest objects have about 1,100.
	maxName = 2 << 10
)

// Version writes a response's system_version_info: the version of the configuration, with "+" when more messages of the same change
// follow. Nothing is applied before the last.
func Version(version uint64, more bool) string {
	text := strconv.FormatUint(version, 10)
	if more {
		text += "+"
	}
	return text
}

// ParseVersion reads what Version wrote.
func ParseVersion(text string) (version uint64, more bool, err error) {
	digits, more := strings.CutSuffix(text, "+")
	if version, err = strconv.ParseUint(digits, 10, 64); err != nil {
		return 0, false, fmt.Errorf("the version %q of a response is not a number", text)
	}
	return version, more, nil
}

// Applied are the things of an acknowledged configuration that do not serve, by name, with the reasons.
type Applied struct {
	Listeners map[string]string `json:"listeners"`
	Clusters  map[string]string `json:"clusters"`
}

// Ack makes the error_detail of an acknowledgement: nil when everything serves, else a status OK with an Applied.
func Ack(applied config.Applied) (*statuspb.Status, error) {
	if len(applied.Listeners) == 0 && len(applied.Clusters) == 0 {
		return nil, nil
	}
	payload, err := json.Marshal(&Applied{Listeners: texts(applied.Listeners), Clusters: texts(applied.Clusters)}, writing)
	if err != nil {
		return nil, fmt.Errorf("the acknowledgement cannot be written: %w", err)
	}
	return &statuspb.Status{Code: int32(codes.OK), Details: []*anypb.Any{{TypeUrl: TypeApplied, Value: payload}}}, nil
}

func texts(problems map[string]error) map[string]string {
	out := make(map[string]string, min(len(problems), maxProblems))
	for name, err := range problems {
		if len(out) == maxProblems {
			break
		}
		out[name] = cut(err.Error(), maxProblem)
	}
	return out
}

// Nack makes the error_detail of a refusal.
func Nack(reason error) *statuspb.Status {
	return &statuspb.Status{Code: int32(codes.InvalidArgument), Message: cut(reason.Error(), maxReason)}
}

// Answer reads an error_detail: why the configuration was refused, or "" and what of it does not serve.
func Answer(detail *statuspb.Status) (refused string, applied Applied, err error) {
	if detail.GetCode() != int32(codes.OK) {
		if detail.GetMessage() == "" {
			return "refused without a reason", Applied{}, nil
		}
		return cut(detail.GetMessage(), maxReason), Applied{}, nil
	}
	for _, part := range detail.GetDetails() {
		if part.GetTypeUrl() != TypeApplied {
			return "", Applied{}, fmt.Errorf("an acknowledgement has details of kind %q", part.GetTypeUrl())
		}
		if err := json.Unmarshal(part.GetValue(), &applied, reading); err != nil {
			return "", Applied{}, fmt.Errorf("an acknowledgement cannot be read: %w", err)
		}
	}
	for _, list := range []map[string]string{applied.Listeners, applied.Clusters} {
		if len(list) > maxProblems {
			return "", Applied{}, errors.New("an acknowledgement names more than is allowed")
		}
		for name, text := range list {
			if len(name) > maxName {
				return "", Applied{}, errors.New("an acknowledgement holds a name that is longer than is allowed")
			}
			list[name] = cut(text, maxProblem)
		}
	}
	return "", applied, nil
}

// cut bounds a text for the wire, in UTF-8.
func cut(text string, most int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= most {
		return text
	}
	for most -= len("..."); most > 0 && !utf8.RuneStart(text[most]); {
		most--
	}
	return text[:most] + "..."
}
