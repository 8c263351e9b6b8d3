package gateway

import (
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/transport"
)

// websocketToken is the subprotocol by which browsers send a bearer token.
const websocketToken = "base64url.bearer.authorization.k8s.io."

// clean removes from an outgoing request everything by which a client could
// speak as somebody else, or show the cluster its own credentials. Underscores
// count as dashes, as they do for some servers behind.
func clean(header http.Header) {
	for name := range header {
		plain := strings.ReplaceAll(strings.ToLower(name), "_", "-")
		switch {
		case plain == "authorization", plain == "cookie", plain == "forwarded", plain == "x-real-ip", plain == "audit-id",
			strings.HasPrefix(plain, "impersonate-"), strings.HasPrefix(plain, "x-remote-"),
			strings.HasPrefix(plain, "x-forwarded-"), strings.HasPrefix(plain, "proxy-"):
			delete(header, name)
		}
	}
	protocols := header.Values("Sec-Websocket-Protocol")
	if len(protocols) == 0 {
		return
	}
	var kept []string
	for _, protocol := range strings.Split(strings.Join(protocols, ","), ",") {
		if protocol = strings.TrimSpace(protocol); !strings.HasPrefix(protocol, websocketToken) {
			kept = append(kept, protocol)
		}
	}
	header.Set("Sec-Websocket-Protocol", strings.Join(kept, ", "))
}

// expressible reports whether headers carry the person unchanged. Space around a
// value is lost on the way, so "admin " would arrive as "admin".
func expressible(person user.Info) bool {
	carried := func(value string) bool {
		return value != "" && strings.TrimSpace(value) == value && httpguts.ValidHeaderFieldValue(value)
	}
	for _, values := range person.GetExtra() {
		if slices.ContainsFunc(values, func(value string) bool { return value != "" && !carried(value) }) {
			return false
		}
	}
	return carried(person.GetName()) && (person.GetUID() == "" || carried(person.GetUID())) &&
		!slices.ContainsFunc(person.GetGroups(), func(group string) bool { return !carried(group) })
}

// impersonate makes the request speak as the person whom the hub authenticated.
// The encoding is that of client-go's transport, but that keys of extras keep
// their upper case.
func impersonate(header http.Header, person user.Info) {
	header.Set(transport.ImpersonateUserHeader, person.GetName())
	if uid := person.GetUID(); uid != "" {
		header.Set(transport.ImpersonateUIDHeader, uid)
	}
	for _, group := range named(person) {
		header.Add(transport.ImpersonateGroupHeader, group)
	}
	for key, values := range person.GetExtra() {
		for _, value := range values {
			header.Add(transport.ImpersonateUserExtraHeaderPrefix+escapeKey(key), value)
		}
	}
}

// named are the groups that the cluster must be told. An API server adds
// system:authenticated to whoever comes with another group, and asks its authorizer about
// every group that is named, so that one is left out where nothing changes by it.
func named(person user.Info) []string {
	groups := person.GetGroups()
	others := slices.DeleteFunc(slices.Clone(groups), func(group string) bool { return group == user.AllAuthenticated })
	if len(others) == 0 || slices.Contains(others, user.AllUnauthenticated) || person.GetName() == user.Anonymous {
		return groups
	}
	return others
}

// escapeKey percent-encodes what a header's name cannot hold, and the percent
// sign itself. Upper case is encoded too: header names have no case.
func escapeKey(key string) string {
	const upperHex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(key) {
		c := key[i]
		if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("!#$&'*+-.^_`|~", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.Write([]byte{'%', upperHex[c>>4], upperHex[c&15]})
	}
	return b.String()
}
