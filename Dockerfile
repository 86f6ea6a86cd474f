# syntax=docker/dockerfile:1
# ztunnel: the addon and dist/ are built in one stage; the image holds what runs, nothing else.

FROM node:26-bookworm AS build
WORKDIR /src
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts
COPY tsconfig.json ./
COPY native ./native
COPY src ./src
RUN node native/build.mjs
RUN npx tsc -p src
RUN node src/bundle.mjs
RUN npm ci --ignore-scripts --omit=dev --omit=optional

FROM node:26-bookworm-slim
ENV NODE_ENV=production
WORKDIR /opt/ztunnel
COPY --from=build /src/package.json ./
COPY --from=build /src/node_modules ./node_modules
COPY --from=build /src/native/build/ztunnel.node ./native/build/ztunnel.node
COPY --from=build /src/dist ./dist
RUN ln -s /opt/ztunnel/dist/main.js /usr/local/bin/ztunnel
WORKDIR /
ENTRYPOINT ["/usr/local/bin/ztunnel"]
CMD ["proxy", "ztunnel"]
