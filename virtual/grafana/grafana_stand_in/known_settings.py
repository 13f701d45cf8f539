"""Sections and keys of grafana.ini in Grafana 12. Others are probably typing errors, so the stand-in refuses them."""

ANY = "*"  # a section with arbitrary keys

_TEXT = """
DEFAULT: app_mode instance_name target
paths: data temp_data_lifetime logs plugins provisioning permitted_provisioning_paths
server: protocol min_tls_version http_addr http_port domain enforce_domain root_url serve_from_sub_path router_logging
  static_root_path enable_gzip cert_file cert_key cert_pass certs_watch_interval socket_gid socket_mode socket cdn_url
  read_timeout
server.custom_response_headers: *
environment: local_file_system_available
database: type host name user password url high_availability max_idle_conn max_open_conn conn_max_lifetime log_queries
  ssl_mode ssl_sni isolation_level ca_cert_path client_key_path client_cert_path server_cert_name path cache_mode wal
  migration_locking locking_attempt_timeout_sec query_retries transaction_retries instrument_queries
  delete_auto_gen_ids
remote_cache: type connstr prefix encryption
dataproxy: logging timeout dialTimeout keep_alive_seconds tls_handshake_timeout_seconds
  expect_continue_timeout_seconds max_conns_per_host max_idle_connections idle_conn_timeout_seconds send_user_header
  response_limit row_limit user_agent
analytics: enabled reporting_enabled reporting_distributor check_for_updates check_for_plugin_updates
  google_analytics_ua_id google_analytics_4_id google_analytics_4_send_manual_page_views google_tag_manager_id
  rudderstack_write_key rudderstack_data_plane_url rudderstack_sdk_url rudderstack_config_url
  rudderstack_integrations_url intercom_secret application_insights_connection_string
  application_insights_endpoint_url feedback_links_enabled reporting_static_context browser_console_reporter
security: disable_initial_admin_creation admin_user admin_password admin_email secret_key encryption_provider
  available_encryption_providers disable_gravatar data_source_proxy_whitelist disable_brute_force_login_protection
  brute_force_login_protection_max_attempts disable_username_login_protection disable_ip_address_login_protection
  cookie_secure cookie_samesite allow_embedding strict_transport_security strict_transport_security_max_age_seconds
  strict_transport_security_preload strict_transport_security_subdomains x_content_type_options x_xss_protection
  content_security_policy content_security_policy_template content_security_policy_report_only
  content_security_policy_report_only_template angular_support_enabled csrf_always_check csrf_trusted_origins
  csrf_additional_headers enable_frontend_sandbox_for_plugins actions_allow_post_url
security.encryption: data_keys_cache_ttl data_keys_cache_cleanup_interval
snapshots: enabled external_enabled external_snapshot_url external_snapshot_name public_mode
dashboards: versions_to_keep min_refresh_interval default_home_dashboard_path dashboard_performance_metrics
  panel_series_limit
datasources: datasource_limit concurrent_query_count default_manage_alerts_ui_toggle
  default_allow_recording_rules_target_alerts_ui_toggle
users: allow_sign_up allow_org_create auto_assign_org auto_assign_org_id auto_assign_org_role verify_email_enabled
  login_default_org_id login_hint password_hint default_theme default_language home_page external_manage_link_url
  external_manage_link_name external_manage_info viewers_can_edit editors_can_admin user_invite_max_lifetime_duration
  verification_email_max_lifetime_duration last_seen_update_interval hidden_users
service_accounts: token_expiration_day_limit
auth: login_cookie_name disable_login login_maximum_inactive_lifetime_duration login_maximum_lifetime_duration
  token_rotation_interval_minutes disable_login_form disable_signout_menu signout_redirect_url oauth_auto_login
  oauth_state_cookie_max_age oauth_login_error_message oauth_refresh_token_server_lock_min_wait_ms
  api_key_max_seconds_to_live sigv4_auth_enabled sigv4_verbose_logging azure_auth_enabled
  oauth_allow_insecure_email_lookup id_response_header_enabled id_response_header_prefix
  id_response_header_namespaces managed_service_accounts_enabled
auth.passwordless: enabled code_expiration
auth.anonymous: enabled org_name org_role hide_version device_limit
auth.basic: enabled password_policy
auth.proxy: enabled header_name header_property auto_sign_up sync_ttl whitelist headers headers_encoded
  enable_login_token
auth.ldap: enabled config_file allow_sign_up skip_org_role_sync sync_cron active_sync_enabled
rbac: permission_cache reset_basic_roles permission_validation_enabled
smtp: enabled host user password cert_file key_file skip_verify from_address from_name ehlo_identity startTLS_policy
  enable_tracing
smtp.static_headers: *
emails: welcome_email_on_sign_up templates_pattern content_types
log: mode level filters user_facing_default_error
log.console: level format
log.file: level format log_rotate max_lines max_size_shift daily_rotate max_days
log.syslog: level format network address facility tag
log.frontend: enabled custom_endpoint log_endpoint_requests_per_second_limit log_endpoint_burst_limit
  instrumentations_all_enabled instrumentations_errors_enabled instrumentations_console_enabled
  instrumentations_webvitals_enabled instrumentations_tracing_enabled internal_logger_level api_key
quota: enabled org_user org_dashboard org_data_source org_api_key org_alert_rule user_org global_user global_org
  global_dashboard global_api_key global_session global_alert_rule global_file global_correlations
  alerting_rule_group_rules alerting_rule_evaluation_results
unified_alerting: enabled disabled_orgs initialization_timeout admin_config_poll_interval
  alertmanager_config_poll_interval alertmanager_max_silences_count alertmanager_max_silence_size_bytes
  ha_listen_address ha_advertise_address ha_peers ha_peer_timeout ha_label ha_gossip_interval ha_reconnect_timeout
  ha_push_pull_interval execute_alerts evaluation_timeout max_attempts initial_retry_delay max_retry_delay
  randomization_factor min_interval max_state_save_concurrency state_periodic_save_interval
  state_periodic_save_batch_size disable_jitter notification_log_retention resolved_alert_retention
  rule_version_record_limit deleted_rule_retention
unified_alerting.screenshots: capture capture_timeout max_concurrent_screenshots upload_external_image_storage
unified_alerting.reserved_labels: disabled_labels
unified_alerting.state_history: enabled backend primary secondaries
unified_alerting.state_history.annotations: max_age max_annotations_to_keep
recording_rules: enabled timeout default_datasource_uid
annotations: cleanupjob_batchsize tags_length
annotations.dashboard: max_age max_annotations_to_keep
annotations.api: max_age max_annotations_to_keep
explore: enabled defaultTimeOffset hide_logs_download
help: enabled
profile: enabled
news: news_feed_enabled
query: concurrent_query_limit
query_history: enabled
short_links: expire_time
metrics: enabled interval_seconds disable_total_stats total_stats_collector_interval_seconds basic_auth_username
  basic_auth_password
metrics.environment_info: *
grafana_net: url
grafana_com: url api_url sso_api_token
rendering: server_url callback_url renderer_token concurrent_render_request_limit render_key_lifetime
  default_image_width default_image_height default_image_scale
external_image_storage: provider
panels: enable_alpha disable_sanitize_html
plugins: enable_alpha app_tls_skip_verify_insecure allow_loading_unsigned_plugins plugin_admin_enabled
  plugin_admin_external_manage_enabled plugin_catalog_url plugin_catalog_hidden_plugins log_backend_requests
  public_key_retrieval_disabled public_key_retrieval_on_startup disable_plugins forward_host_env_vars preinstall
  preinstall_sync preinstall_async preinstall_disabled preinstall_auto_update update_strategy
live: max_connections message_size_limit allowed_origins ha_engine ha_engine_address ha_engine_password ha_prefix
feature_toggles: *
time_picker: quick_ranges
date_formats: full_date interval_second interval_minute interval_hour interval_day interval_month interval_year
  use_browser_locale default_timezone default_week_start
expressions: enabled
geomap: default_baselayer_config enable_custom_baselayers
support_bundles: enabled server_admin_only public_keys
navigation.app_sections: *
navigation.app_standalone_pages: *
secretscan: enabled interval base_url oncall_url revoke
public_dashboards: enabled
cloud_migration: enabled is_target
"""


def _table() -> dict[str, frozenset[str]]:
    table: dict[str, list[str]] = {}
    section = ""
    for line in _TEXT.strip().splitlines():
        if not line.startswith(" "):
            section, line = line.split(":", 1)
            table[section] = []
        table[section] += line.split()
    return {name: frozenset(keys) for name, keys in table.items()}


SETTINGS = _table()


def complaint(section: str, key: str) -> str | None:
    """A sentence if Grafana does not know this setting, None if it does."""
    keys = SETTINGS.get(section)
    if keys is None:
        return f"unknown section [{section}]"
    if ANY in keys or key in keys:
        return None
    return f"unknown key '{key}' in section [{section}]"
