// Package denial is the list of people and credentials whom the hub no longer
// believes: a Secret with one per line. Members read it from memory, so it acts on
// requests and on open streams within seconds.
package denial

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// The Secret that holds the list. It is one only so that writing it is a right of
// its own; nothing in it is secret.
const (
	Namespace = "kube-system"
	Name      = "tripod-denied"
	// Key of the list in its data; other keys count too.
	Key = "list"
)

// List says who is denied.
type List struct {
	users, credentials map[string]bool
}

// Line is an entry. Credentials are named as Kubernetes does in a user's extra
// authentication.kubernetes.io/credential-id: X509SHA256=… or JTI=….
func Line(user, credential string) string {
	if credential != "" {
		return "credential " + credential
	}
	return "user " + user
}

// Parse reads "user NAME" and "credential ID" lines. Empty lines, and what follows
// a '#' at the start of a line, are nothing.
func Parse(secret *corev1.Secret) List {
	list := List{users: map[string]bool{}, credentials: map[string]bool{}}
	for _, key := range slices.Sorted(maps.Keys(secret.Data)) {
		for line := range strings.Lines(string(secret.Data[key])) {
			kind, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			switch value = strings.TrimSpace(value); {
			case value == "":
			case kind == "user":
				list.users[value] = true
			case kind == "credential":
				list.credentials[strings.ToLower(value)] = true
			}
		}
	}
	return list
}

// Denies says what is on the list, or nothing.
func (l List) Denies(user string, credentials []string) string {
	if l.users[user] {
		return fmt.Sprintf("user %q", user)
	}
	for _, id := range credentials {
		if l.credentials[strings.ToLower(id)] {
			return fmt.Sprintf("the credential %s of %q", id, user)
		}
	}
	return ""
}
