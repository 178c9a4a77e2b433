// SPDX-License-Identifier: Apache-2.0

package flow

const childEnv = "ORB8_FLOW_TEST_CHILD"

func child() int { return 0 }
