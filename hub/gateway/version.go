package gateway

import (
	"errors"
	"strconv"
	"strings"
)

// A resourceVersion, and a continue token, mean something only to the cluster
// that gave them. Those that pass through the route of an application carry the
// cluster's serial, so that any hub member can tell, without remembering
// anything, whose they are. The form stays that of Kubernetes: a decimal number
// that grows within the cluster.

// errForeign is a version or token of another cluster than the one asked.
var errForeign = errors.New("it was given by another cluster than the one where the application is active now")

// stamp is the end of every version that a cluster with that serial gave: the
// serial's digits, and how many they are. It is read from the right, so no string
// ends with the stamps of two serials.
func stamp(serial uint64) string {
	digits := strconv.FormatUint(serial, 10)
	if len(digits) < 10 {
		return digits + strconv.Itoa(len(digits))
	}
	return digits + strconv.Itoa(len(digits)) + "0" // 20 digits are the most
}

// stampVersion marks a resourceVersion on its way out. "" and "0" name no
// moment and stay.
func stampVersion(version, stamp string) string {
	if version == "" || version == "0" {
		return version
	}
	return version + stamp
}

// unstampVersion is the cluster's own resourceVersion, or errForeign.
func unstampVersion(version, stamp string) (string, error) {
	if version == "" || version == "0" {
		return version, nil
	}
	own, ok := strings.CutSuffix(version, stamp)
	if !ok || own == "" {
		return "", errForeign
	}
	return own, nil
}

func stampToken(token, stamp string) string {
	if token == "" {
		return ""
	}
	return stamp + "." + token // upstream's alphabet has no dot
}

func unstampToken(token, stamp string) (string, error) {
	if token == "" {
		return "", nil
	}
	own, ok := strings.CutPrefix(token, stamp+".")
	if !ok {
		return "", errForeign
	}
	return own, nil
}
