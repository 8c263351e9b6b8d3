// Package crds embeds the CRD manifests that controller-gen makes of the kinds.
package crds

import "embed"

// Files holds one CustomResourceDefinition per file.
//
//go:embed *.yaml
var Files embed.FS
