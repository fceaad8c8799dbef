// The portal's own client asks for a group's aggregates. The question is a JSON object on stdin, the
// answer one on stdout: `data` as the portal gets it and the table of its dashlet, or `error`.
"use strict";

globalThis.window = globalThis; // it is bundled for browsers, and sends requests by their `fetch`
require("reflect-metadata");
const { CsModule } = require("@project-sunbird/client-services");
const { readFileSync } = require("node:fs");

const asked = JSON.parse(readFileSync(0, "utf8"));

async function main() {
  await CsModule.instance.init({
    core: {
      httpAdapter: "HttpClientBrowserAdapter",
      global: { channelId: "channel", producerId: "portal", deviceId: "device", sessionId: "session" },
      api: {
        host: asked.host,
        authentication: { userToken: asked.userToken, bearerToken: "the gateway's" },
      },
    },
    services: {
      groupServiceConfig: { apiPath: "/group/v1", dataApiPath: asked.dataApiPath },
      formServiceConfig: { apiPath: "/form/v1" }, // the module wants one whatever it is used for
    },
  });
  const service = CsModule.instance.groupService.activityService;
  const { groupId, activity, group, leafNodesCount, contents } = asked;
  try {
    const data = await service
      .getDataAggregation(groupId, activity, group, leafNodesCount)
      .toPromise();
    const said = JSON.stringify(data); // the dashlet writes into what it is given
    const dashlet = await service.getDataForDashlets(contents || [], data).toPromise();
    return { data: JSON.parse(said), dashlet };
  } catch (error) {
    if (!error.response) throw error;
    const { responseCode, body } = error.response;
    return { error: { code: error.code, responseCode, body } };
  }
}

main().then(
  (answer) => console.log(JSON.stringify(answer)),
  (error) => {
    console.error(error.message);
    process.exitCode = 1;
  },
);
