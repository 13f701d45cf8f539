// Package init replaces flux/init: this build of InfluxDB has no Flux.
package init

import "log"

// Initialize is called at the start of the server if flux-enabled is set.
func Initialize() {
	log.Fatal("This build of InfluxDB has no Flux: remove flux-enabled from its configuration.")
}
